"""Commands for Typer: help in plain text, and errors that know their command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from typer.core import TyperCommand

from mbbench.cli import help
from mbbench.cli.mistakes import PARSER_ERROR

_Base: Any = TyperCommand if TYPE_CHECKING else object


class Parsing(_Base):  # type: ignore[misc]
    """What the group of commands and each command share."""

    def get_help_option(self, ctx: Any) -> Any:
        option = super().get_help_option(ctx)
        option.default = False  # instead of None, for whose conversion Typer would import pydantic
        return option

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        try:
            return super().parse_args(ctx, args)
        except PARSER_ERROR as error:
            error.ctx = ctx  # type: ignore[attr-defined]  # some lack it
            raise


class Command(Parsing, TyperCommand):
    """A command whose help has panels, and neither cuts nor breaks a name."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return help.usage_pieces(self.get_params(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        self.format_usage(ctx, formatter)
        help.write_command(formatter, ctx, self.help or "", self.get_params(ctx))
