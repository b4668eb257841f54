"""The Typer application: all commands, and how errors are printed and become exit codes."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console

from mbbench.cli import fit, gate, network, results, run, system, train
from mbbench.errors import EXIT_INTERRUPTED, MbbenchError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Compress image classifiers and measure what the compression buys on real hardware.",
)
for command in (
    run.run,
    run.sweep,
    fit.fit,
    run.worker,
    run.export,
    gate.keep,
    gate.check,
    gate.compare,
    gate.calibrate,
    train.train,
    train.compress,
    network.cost,
    results.report,
    results.show,
    results.choose,
    results.verify,
    results.explain,
    system.backends,
    system.doctor,
):
    app.command()(command)


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print mbbench's version and exit.")] = False,
) -> None:
    if version:
        from importlib.metadata import version as installed_version

        print(f"mbbench {installed_version('mbbench')}")
        raise typer.Exit


def main() -> None:
    """Run the command line: print an `MbbenchError` as one line on stderr and exit with its code."""
    try:
        app(prog_name="mbbench")
    except MbbenchError as error:
        Console(stderr=True).print(f"error: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted", highlight=False)
        sys.exit(EXIT_INTERRUPTED)
