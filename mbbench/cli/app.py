"""The Typer application: all commands, and how errors are printed and become exit codes."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from importlib import import_module
from io import TextIOWrapper
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from mbbench.cli.command import Command, Parsing
from mbbench.cli.help import MAX_WIDTH, write_definitions
from mbbench.cli.mistakes import PARSER_ERROR, describe
from mbbench.errors import EXIT_CLOSED_PIPE, EXIT_INTERRUPTED, MbbenchError, UsageError

# Subject -> command -> (the module of `mbbench.cli` that has it, the first line of its docstring). The module is
# imported when the command is called: `--help` needs these lines alone.
COMMANDS = {
    "Measure": {
        "run": ("run", "Build networks, measure them on inference runtimes, and report the results."),
        "sweep": ("run", "Measure a grid of cells, skipping those whose result is already in --results."),
        "worker": ("run", "Offer this machine to `mbbench sweep --cluster ADDRESS`, until the scheduler closes."),
        "fit": ("fit", "Find the largest MobileNetV1 within limits, measuring few networks and predicting the others."),
        "export": ("run", "Export one network as the file that a backend opens (ONNX, TensorRT engine, ...)."),
    },
    "Gate changes": {
        "keep": ("gate", "Save the artifacts of some cells as the baseline of `mbbench check --baseline DIR`."),
        "check": ("gate", "Fail (exit 3) if a network became slower, bigger or less accurate than its baseline."),
        "compare": ("gate", "Compare stored results cell by cell: faster, slower, same or inconclusive."),
        "calibrate": ("gate", "Measure this machine's noise, and the smallest change that `check` can detect here."),
    },
    "Make networks": {
        "train": ("train", "Train a MobileNetV1 (or reuse an identical training) and print its checkpoint's path."),
        "compress": ("train", "Prune, distill and fine-tune a MobileNetV1, and print its checkpoint's path."),
        "cost": ("network", "Count Mult-Adds, parameters and activations, and compare them with the paper's."),
    },
    "Read results": {
        "report": ("results", "Write a report on stored results: self-contained HTML, Markdown, CSV, JSON or JUnit."),
        "show": ("results", "Show the report on stored results in the terminal."),
        "choose": ("results", "Pick the best cell within limits, and name the limit that each other cell misses."),
        "verify": ("results", "Recompute an HTML report from its embedded records; exit 5 if anything differs."),
        "explain": ("results", "Explain why a lower precision is faster than fp32 on this machine, or why it is not."),
    },
    "Look at this machine": {
        "backends": ("system", "List the backends: versions, devices and precisions, or why one cannot start."),
        "doctor": ("system", "Check whether this machine is fit for measuring, and name remedies; change nothing."),
    },
    "Set up the shell": {
        "completion": ("system", "Print the script that completes commands, options and values in bash, zsh or fish."),
    },
}
_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": MAX_WIDTH}
_COMPLETE = "_MBBENCH_COMPLETE"  # `complete.VARIABLE`, without an import
_MODULES = {name: module for commands in COMMANDS.values() for name, (module, _) in commands.items()}


class _Commands(Parsing, TyperGroup):
    """The commands, each imported when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(_MODULES)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in _MODULES:
            return None
        from mbbench.cli import complete

        single = typer.Typer(add_completion=False, rich_markup_mode=None, context_settings=_SETTINGS)
        single.command(cmd_name, cls=Command)(getattr(import_module(f"mbbench.cli.{_MODULES[cmd_name]}"), cmd_name))
        command = typer.main.get_command(single)
        complete.attach(command.params)
        return command

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        from mbbench.cli import complete

        summaries = (pair for commands in COMMANDS.values() for pair in commands.items())
        return complete.items([(name, summary) for name, (_, summary) in summaries], incomplete)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        for subject, commands in COMMANDS.items():
            write_definitions(formatter, subject, [(name, summary) for name, (_, summary) in commands.items()])


app = typer.Typer(
    cls=_Commands,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # Rich would take as long as everything else to print `--help`
    context_settings=_SETTINGS,
    help="Compress image classifiers and measure what the compression buys on real hardware.",
)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print mbbench's version and exit.")] = False,
) -> None:
    if version:
        from importlib.metadata import version as installed_version

        print(f"mbbench {installed_version('mbbench')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help(), file=sys.stderr)
        raise typer.Exit(UsageError.exit_code)


def main() -> None:
    """Run the command line: print an `MbbenchError` as one line on stderr and exit with its code.

    Characters that the output's encoding lacks are replaced. A reader that closes the pipe (`| head`) is no error.
    """
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: PTH123, SIM115  # the caller closed it
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
    if _COMPLETE in os.environ:
        from mbbench.cli import complete

        complete.prepare()
    try:
        code = _run()
    except BrokenPipeError:
        code = EXIT_CLOSED_PIPE
    if code == EXIT_CLOSED_PIPE or not _flush():
        code = EXIT_CLOSED_PIPE
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for what is still buffered
    sys.exit(code)


def _run() -> int | str | None:
    """Run the command and return its exit code; a `BrokenPipeError` passes, or becomes its code."""
    try:
        code: int | None = app(prog_name="mbbench", standalone_mode=False)
    except SystemExit as end:
        # Typer and Rich exit with 1 if they write to a closed pipe.
        closed = end.code == 1 and isinstance(end.__context__, BrokenPipeError)
        return EXIT_CLOSED_PIPE if closed else end.code
    except MbbenchError as error:
        return _print_error(error)
    except PARSER_ERROR as error:
        return _print_error(describe(error))
    if code == EXIT_INTERRUPTED:
        with suppress(SystemExit):
            _print("interrupted")
    return code


def _print_error(error: MbbenchError) -> int:
    """Print `error` as one line and return its exit code."""
    with suppress(SystemExit):  # of Rich, if standard error is a closed pipe
        _print(f"error: {error}", style="red")
    return error.exit_code


def _flush() -> bool:
    """Write what is buffered; return False if the reader closed the pipe."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return False
    return True


def _print(text: str, style: str | None = None) -> None:
    from rich.console import Console

    Console(stderr=True).print(text, style=style, highlight=False, markup=False, soft_wrap=True)
