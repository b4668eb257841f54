"""How a metric changed from one measurement to another, with its uncertainty, and how much worse it may get."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mbbench import stats
from mbbench.errors import UsageError
from mbbench.spec import Cell
from mbbench.stats import Interval

Metric = Literal["p50", "p99", "rss", "size", "top1"]

DEFAULTS = ("p50:3%", "p99:10%", "rss:5%", "size:1%", "top1:-0.5pt")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """How much worse a metric may get: a share of the baseline's, and of top-1 a difference of shares (0 to 1)."""

    metric: Metric
    worse: float

    @property
    def text(self) -> str:
        amount = f"{self.worse * 100:g}"
        return f"-{amount}pt" if self.metric == "top1" else f"{amount}%"


def limits(texts: Sequence[str]) -> tuple[Limit, ...]:
    """`p50:3%` ... and `top1:-0.5pt`; a metric named twice has the last limit. Raises `UsageError`."""
    found: dict[Metric, Limit] = {}
    for text in texts:
        match = re.fullmatch(r"(p50|p99|rss|size):(\d+(?:\.\d+)?)%|(top1):-(\d+(?:\.\d+)?)pt", text)
        if match is None:
            raise UsageError(f"{text!r} is no limit", f"write it like one of {' '.join(DEFAULTS)}")
        metric, amount = match[1] or match[3], match[2] or match[4]
        found[metric] = Limit(metric=metric, worse=float(amount) / 100)  # type: ignore[index, arg-type]
    return tuple(found.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Of one metric, from baseline to candidate.

    p50 and p99 in ms, RSS and size in bytes, top-1 as a share. `change` is candidate over baseline, less 1, and for
    top-1 their difference. `ci95`, and `p_value` of there being no change, are None for what is read just once.
    """

    metric: Metric
    baseline: float | None
    candidate: float | None
    change: float | None
    ci95: Interval | None = None
    p_value: float | None = None
    reason: str | None = None  # why there is no change to tell

    @property
    def worse(self) -> float:
        """By how much it changed for the worse; of what is not known, by nothing."""
        if self.change is None:
            return -math.inf
        return -self.change if self.metric == "top1" else self.change


def from_effect(metric: Metric, baseline: float, candidate: float, effect: stats.Effect | None) -> Change:
    """From logarithms of ratios back to ratios."""
    if effect is None:
        reason = "too few replicates"
        return Change(metric=metric, baseline=baseline, candidate=candidate, change=None, reason=reason)
    low, high = (math.expm1(edge) for edge in (effect.ci95.low, effect.ci95.high))
    return Change(
        metric=metric,
        baseline=baseline,
        candidate=candidate,
        change=math.expm1(effect.estimate),
        ci95=Interval(low, high),
        p_value=effect.p_value,
    )


def from_readings(
    metric: Metric, baseline: int | None, candidate: int | None, spread: float = 0.0, rounds: int = 0
) -> Change:
    """The change of what is read just once: exact, unless `rounds` of no change had the standard deviation `spread`."""
    if baseline is None or candidate is None:
        reason = "the kernel does not tell it here"
        return Change(metric=metric, baseline=baseline, candidate=candidate, change=None, reason=reason)
    share = (candidate - baseline) / baseline
    if not spread:
        return Change(metric=metric, baseline=baseline, candidate=candidate, change=share)
    known = stats.student(share, spread, rounds - 1)
    return Change(
        metric=metric, baseline=baseline, candidate=candidate, change=share, ci95=known.ci95, p_value=known.p_value
    )


def from_answers(lost: int, gained: int, rights: tuple[int, int], images: int) -> Change:
    """McNemar's test: of the same images those count that the baseline alone (`lost`) or the candidate got right.

    Where no image counts, nothing changed, however few they are; there is no interval then.
    """
    changed = lost + gained > 0
    return Change(
        metric="top1",
        baseline=rights[0] / images,
        candidate=rights[1] / images,
        change=(gained - lost) / images,
        ci95=stats.paired_interval(gained, lost, images) if changed else None,
        p_value=stats.mcnemar(lost, gained) if changed else None,
    )


def name_of(cell: Cell) -> tuple[object, ...]:
    """What makes two cells the same in a comparison; weights and pruned widths may differ, for they are compared."""
    network = cell.model.family, cell.model.alpha, cell.model.resolution, cell.model.variant
    return *network, cell.backend, cell.device, cell.precision
