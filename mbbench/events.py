"""What a run tells whoever watches it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mbbench.result import Result
from mbbench.spec import Cell


@dataclass(frozen=True, slots=True)
class Working:
    """Preparing goes on: `done` of `total` steps of `what`."""

    what: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Measuring:
    """A child process starts to measure; whoever hears this must keep quiet until `Measured`."""

    cell: Cell
    index: int
    count: int
    left_s: float | None = None  # until the last of them is done, if others took as long


@dataclass(frozen=True, slots=True)
class Finished:
    result: Result


Event = Working | Measuring | Finished
Notify = Callable[[Event], None]
Announce = Callable[[Working], None]
