"""`mbbench backends`, `doctor` and `completion`: what is installed, whether this machine is fit, and its shell."""

from __future__ import annotations

import time
from typing import Annotated, Literal, get_args

import typer

from mbbench.cli import complete, options, output
from mbbench.errors import BackendError

Shell = Literal["bash", "zsh", "fish"]
_WATCH_S = 1.0  # long enough to see which processes use the CPUs


def backends(format: options.Format = "table") -> None:
    """List the backends: versions, devices and precisions, or why one cannot start."""
    from mbbench import registry
    from mbbench.report.sections import system

    descriptions = [registry.describe(name) for name in registry.names()]
    if not descriptions:
        raise BackendError("no backend is installed", f"run {registry.install_command('openvino')}")
    output.write_tables([system.backend_table(descriptions)], descriptions, format)


def doctor(format: options.Format = "table") -> None:
    """Check whether this machine is fit for measuring, and name remedies; change nothing."""
    from mbbench import doctor as fitness
    from mbbench.machine import fingerprint
    from mbbench.report.sections import system

    machine = fingerprint()
    before = fitness.snapshot()
    time.sleep(_WATCH_S)
    checks = fitness.judge(machine, before, fitness.snapshot())
    record = {"machine": machine, "id": machine.id, "checks": checks}
    output.write_tables([system.check_table(machine, checks)], record, format)


def completion(
    shell: Annotated[
        Shell, typer.Argument(metavar="SHELL", help=f"Shell to complete in: {', '.join(get_args(Shell))}.")
    ],
) -> None:
    """Print the script that completes commands, options and values in bash, zsh or fish.

    In bash, put `eval "$(mbbench completion bash)"` into ~/.bashrc; likewise in zsh, after `compinit`.
    In fish: `mbbench completion fish > ~/.config/fish/completions/mbbench.fish`.
    """
    output.write(complete.script(shell) + "\n")
