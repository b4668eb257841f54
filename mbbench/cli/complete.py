"""What a shell offers after Tab, without importing a runtime; shells offer files where nothing fits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, get_args

from mbbench.families import FAMILIES, LIBRARIES
from mbbench.spec import Precision, Scenario

VARIABLE = "_MBBENCH_COMPLETE"  # of the environment: the script of `mbbench completion` asks for completions with it


def script(shell: str) -> str:
    """Return the script that makes `shell` (bash, zsh or fish) ask mbbench for completions."""
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    return get_completion_script(prog_name="mbbench", complete_var=VARIABLE, shell=shell)


def prepare() -> None:
    """Make Typer ready to answer the scripts."""
    from typer.completion import completion_init  # type: ignore[attr-defined]

    completion_init()


def items(values: Iterable[tuple[str, str | None]], incomplete: str) -> list[Any]:
    """Return those of the values, each with its description, that start with `incomplete`."""
    from typer.core import CompletionItem  # type: ignore[attr-defined]

    return [CompletionItem(value, help=help) for value, help in values if value.startswith(incomplete)]


def attach(parameters: Sequence[Any]) -> None:
    """Make the options in `parameters` complete their values."""
    for parameter in parameters:
        values = _VALUES.get(max(parameter.opts, key=len))
        if values is not None:
            parameter.shell_complete = partial(_complete, values, parameter.metavar)


def _complete(values: Callable[[], Iterable[str]], metavar: str, context: Any, incomplete: str) -> list[Any]:
    """Return completions of a value, or of the last item of a list if `metavar` is a plural."""
    before, comma, _ = incomplete.rpartition(",") if metavar.startswith("NAMES") else ("", "", "")
    offered = (*values(), "all") if metavar.endswith("|all") else values()
    return items([(f"{before}{comma}{value}", None) for value in offered if value not in before.split(",")], incomplete)


def _backends() -> Iterable[str]:
    from mbbench import registry

    return registry.names()


def _profiles() -> Iterable[str]:
    from mbbench.profile import names

    return names()


def _limits() -> Iterable[str]:
    from mbbench.compare.changes import DEFAULT_LIMITS

    return DEFAULT_LIMITS


_FAMILIES = (*FAMILIES, *LIBRARIES)
_DATA = ("digits", "fashion-mnist:")
# Option -> its values. Other options take one of the choices of their type, a file, or a free text.
_VALUES: Mapping[str, Callable[[], Iterable[str]]] = {
    "--model": lambda: _FAMILIES,
    "--against": lambda: _FAMILIES,
    "--variant": lambda: ("standard", *(variant for info in FAMILIES.values() for variant in info.variants)),
    "--backend": _backends,
    "--to": _backends,
    "--resources": _backends,
    "--device": lambda: ("cpu", "gpu", "npu", "cuda:0"),  # of the backends under backends/; asking them takes seconds
    "--precision": lambda: get_args(Precision),
    "--scenario": lambda: get_args(Scenario),
    "--data": lambda: _DATA,
    "--calibration": lambda: ("random", *_DATA),
    "--weights": lambda: ("random", "imagenet", "keras:", *LIBRARIES),
    "--profile": _profiles,
    "--fail-on": _limits,
    "--margin": _limits,
}
