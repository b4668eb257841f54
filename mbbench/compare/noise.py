"""A machine's noise floor: what `mbbench calibrate` learnt from comparing artifacts with themselves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from mbbench import cache, stats
from mbbench.compare import changes, gate
from mbbench.compare.changes import Metric
from mbbench.compare.gate import Readings
from mbbench.machine import Machine
from mbbench.spec import Cell, content_key

METRICS: tuple[Metric, ...] = ("p50", "p99", "rss")  # size and answers of one file are the same every time


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """One metric's noise, as shares. `within`: of A/A changes in a round of a gate. `between`: from process to process.

    Both are standard deviations. `detectable` is the smallest change for the worse that fails both rounds of a gate 95
    times of 100, whatever its limit.
    """

    within: float
    between: float
    detectable: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """What `rounds` rounds of `seconds` found; metrics that could not be measured are missing."""

    time_utc: str
    rounds: int
    seconds: float
    floors: dict[Metric, Floor]


def learn(rounds: Sequence[Readings], seconds: float, time_utc: str) -> Noise:
    """The noise in rounds in which baseline and candidate are one file."""
    floors = {}
    for metric in METRICS:
        found = [gate.change(metric, [readings]) for readings in rounds]
        shares = [change.change for change in found if change.change is not None]
        levels = [math.log(change.baseline) for change in found if change.baseline is not None]
        if len(shares) < 3 or len(levels) < 3:
            continue
        within = stats.deviation(shares)
        widths = [(c.ci95.high - c.ci95.low) / 2 for c in found if c.ci95 is not None]
        needed = stats.median(widths) if widths else stats.Z95 * within
        # Both rounds together must be significant; asked of each, it is on the safe side.
        floors[metric] = Floor(within=within, between=stats.deviation(levels), detectable=needed + stats.Z95 * within)
    return Noise(time_utc=time_utc, rounds=len(rounds), seconds=seconds, floors=floors)


def save(noise: Noise, machine: Machine, cell: Cell, threads: int, batch: int) -> None:
    with cache.atomic(_path(machine, cell, threads, batch)) as temporary:
        temporary.write_bytes(msgspec.json.encode(noise))


def load(machine: Machine, cell: Cell, threads: int, batch: int) -> Noise | None:
    """None: this cell was not calibrated on this machine."""
    try:
        return msgspec.json.decode(_path(machine, cell, threads, batch).read_bytes(), type=Noise)
    except (OSError, msgspec.MsgspecError):
        return None


def _path(machine: Machine, cell: Cell, threads: int, batch: int) -> Path:
    key = content_key(machine.id, changes.name_of(cell), threads, batch)
    return cache.root() / "noise" / f"{key}.json"
