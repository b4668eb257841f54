"""The noise floor of a machine, which `mbbench calibrate` estimates by comparing artifacts with themselves."""

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

METRICS: tuple[Metric, ...] = ("p50", "p99", "rss", "added-rss")  # a file's size and its answers have no noise
_MIN_ROUNDS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """The noise of one metric, as shares (0 to 1).

    `within` is the standard deviation of A/A changes in a round of a gate, `between` that of the metric from process to
    process. `detectable` is the smallest detectable slowdown or growth: a gate with limit 0 fails this slowdown in
    95 of 100 runs. `rounds` is the number of rounds that measured the metric; None means all of the calibration.
    """

    within: float
    between: float
    detectable: float
    rounds: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """The noise floor of a cell, from `rounds` rounds of `seconds`; metrics that could not be measured are missing."""

    time_utc: str
    rounds: int
    seconds: float
    floors: dict[Metric, Floor]

    def rounds_of(self, metric: Metric) -> int:
        """Return the number of rounds from which the metric's floor was estimated."""
        rounds = self.floors[metric].rounds
        return self.rounds if rounds is None else rounds


def estimate(rounds: Sequence[Readings], seconds: float, time_utc: str) -> Noise:
    """Return the noise in rounds whose baseline and candidate are the same file."""
    floors = {}
    for metric in METRICS:
        changes_of_rounds = [gate.compute_change(metric, [readings]) for readings in rounds]
        known = [(c.change, c.baseline) for c in changes_of_rounds if c.change is not None and c.baseline is not None]
        if len(known) < _MIN_ROUNDS:
            continue
        within = stats.standard_deviation([share for share, _ in known])
        between = stats.standard_deviation([math.log(level) for _, level in known])
        half_width = stats.student_effect(0.0, within, len(known) - 1).ci95.high
        half_widths = [(c.ci95.high - c.ci95.low) / 2 for c in changes_of_rounds if c.ci95 is not None]
        significant = stats.median(half_widths) if half_widths else half_width
        # A gate requires significance of both rounds together; requiring it of each round errs on the safe side.
        floors[metric] = Floor(within=within, between=between, detectable=significant + half_width, rounds=len(known))
    return Noise(time_utc=time_utc, rounds=len(rounds), seconds=seconds, floors=floors)


def write(noise: Noise, machine: Machine, cell: Cell, threads: int, batch: int) -> None:
    """Write the noise of a cell into the cache, in place of an earlier calibration."""
    with cache.atomic(_path(machine, cell, threads, batch)) as temporary:
        temporary.write_bytes(msgspec.json.encode(noise))


def read(machine: Machine, cell: Cell, threads: int, batch: int) -> Noise | None:
    """Return the noise of a cell, or None if it was not calibrated on this machine with these settings."""
    try:
        return msgspec.json.decode(_path(machine, cell, threads, batch).read_bytes(), type=Noise)
    except (OSError, msgspec.MsgspecError):
        return None


def _path(machine: Machine, cell: Cell, threads: int, batch: int) -> Path:
    key = content_key(machine.id, changes.comparison_key(cell), threads, batch)
    return cache.root() / "noise" / f"{key}.json"
