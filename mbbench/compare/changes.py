"""How much a metric changed between two measurements, with its uncertainty, and the limit of a change for the worse.

To add a metric to the gate, change:

this module                  `Metric`, `DEFAULT_LIMITS`, the pattern in `parse_limits`; `Limit.text` if its limit is not
                             a percentage, `Change.worsening` if a higher value is better
gate.py                      fields of `Readings`, a case in `compute_change`; `_NOISY` if a second measurement may
                             differ; `_outcome` if a higher value is better
noise.py                     `METRICS` if it is noisy
stored.py                    its words in `_WORDS`, and a case in `_change`
check.py                     its measurement in `_readings`
report/sections/verdicts.py  `_NAMES`, a case in `_value`, its unit in `change_text`
cli/gate.py                  the help of --fail-on and --margin; `_LIMITS` if it has a default limit
docs/gate.md                 how it is measured, and its default limit if it has one
"""

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

Metric = Literal["p50", "p99", "rss", "added-rss", "size", "top1"]

DEFAULT_LIMITS = ("p50:3%", "p99:10%", "rss:5%", "size:1%", "top1:-0.5pt")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """How much worse a metric may get: as a share of the baseline's value, for top-1 as a difference of shares."""

    metric: Metric
    worse: float

    @property
    def text(self) -> str:
        amount = f"{self.worse * 100:g}"
        return f"-{amount}pt" if self.metric == "top1" else f"{amount}%"


def parse_limits(texts: Sequence[str]) -> tuple[Limit, ...]:
    """Return the limits written as `p50:3%` or `top1:-0.5pt`; the last one of a metric counts. Raises `UsageError`."""
    limits: dict[Metric, Limit] = {}
    for text in texts:
        match = re.fullmatch(r"(p50|p99|rss|added-rss|size):(\d+(?:\.\d+)?)%|(top1):-(\d+(?:\.\d+)?)pt", text)
        if match is None:
            raise UsageError(
                f"unknown limit {text!r}", f"write limits such as {' '.join(DEFAULT_LIMITS)} or added-rss:5%"
            )
        metric, amount = match[1] or match[3], match[2] or match[4]
        limits[metric] = Limit(metric=metric, worse=float(amount) / 100)  # type: ignore[index, arg-type]
    return tuple(limits.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """The change of one metric from baseline to candidate.

    p50 and p99 are in ms, RSS and size in bytes, top-1 is a share. `change` is candidate / baseline - 1, for top-1
    candidate - baseline. `ci95`, and `p_value` of the hypothesis that nothing changed, are None if the change is exact
    or its noise is unknown.
    """

    metric: Metric
    baseline: float | None
    candidate: float | None
    change: float | None
    ci95: Interval | None = None
    p_value: float | None = None
    reason: str | None = None  # the reason that `change` is None

    @property
    def worsening(self) -> float:
        """The change, positive if it is for the worse; -inf if it is unknown."""
        if self.change is None:
            return -math.inf
        return -self.change if self.metric == "top1" else self.change


def from_effect(metric: Metric, baseline: float, candidate: float, effect: stats.Effect | None) -> Change:
    """Return the change for an effect on the logarithm of the ratio; `effect` is None for too few replicates."""
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
    """Return the change of a metric that is read once per measurement, such as a file's size.

    `spread` is the standard deviation of the change if nothing changed, estimated from `rounds` rounds; 0 means that
    the readings are exact, or that their noise is unknown. The change from a baseline of 0 is unknown, for
    example that of a runtime that added no memory.
    """
    if baseline is None or candidate is None:
        reason = "the kernel does not report it"
        return Change(metric=metric, baseline=baseline, candidate=candidate, change=None, reason=reason)
    if baseline <= 0:
        reason = "the baseline's value is 0"
        return Change(metric=metric, baseline=baseline, candidate=candidate, change=None, reason=reason)
    share = (candidate - baseline) / baseline
    if not spread:
        return Change(metric=metric, baseline=baseline, candidate=candidate, change=share)
    effect = stats.student_effect(share, spread, rounds - 1)
    return Change(
        metric=metric, baseline=baseline, candidate=candidate, change=share, ci95=effect.ci95, p_value=effect.p_value
    )


def from_answers(lost: int, gained: int, correct: tuple[int, int], images: int) -> Change:
    """Return the change of top-1, by McNemar's test.

    Of `images` images, only the baseline classified `lost` correctly, and only the candidate `gained`. `correct` are
    the totals of both. If `lost` and `gained` are 0, nothing changed, however few the images are: there is no interval.
    """
    changed = lost + gained > 0
    return Change(
        metric="top1",
        baseline=correct[0] / images,
        candidate=correct[1] / images,
        change=(gained - lost) / images,
        ci95=stats.paired_interval(gained, lost, images) if changed else None,
        p_value=stats.mcnemar(lost, gained) if changed else None,
    )


def comparison_key(cell: Cell) -> tuple[object, ...]:
    """Return what two cells must have in common to be compared.

    Weights and pruned widths are not part of it: they are what is compared.
    """
    network = cell.model.family, cell.model.name, cell.model.alpha, cell.model.size, cell.model.variant
    return *network, cell.backend, cell.device, cell.precision
