"""Progress events of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mbbench.result import Result
from mbbench.spec import Cell


@dataclass(frozen=True, slots=True)
class Preparing:
    """Preparation has completed `done` of `total` steps of `what`.

    `total` is 0 if a child process measures: then handlers must stay idle until the next event.
    """

    what: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Measuring:
    """A child process starts to measure cell `index` of `count`. Handlers must stay idle until the next event."""

    cell: Cell
    index: int
    count: int
    left_s: float | None = None  # estimated time until the last cell is finished


@dataclass(frozen=True, slots=True)
class Finished:
    """A cell is finished."""

    result: Result


@dataclass(frozen=True, slots=True)
class Stated:
    """A fact about the run that the user should know, in words; it may come once for each cell."""

    text: str


Event = Preparing | Stated | Measuring | Finished
Notify = Callable[[Event], None]  # receives all events of a run
Announce = Callable[[Preparing | Stated], None]  # receives only preparation; a `Notify` can be passed for it
