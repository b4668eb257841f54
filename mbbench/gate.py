"""What a CI gate decides, as pure functions: limits, changes with their uncertainty, verdicts.

A metric fails if it changed for the worse for certain (Holm's adjusted p is below 0.05, over all cells and metrics)
and by at least its limit. It passes if its 95 % interval ends below the limit. Anything else is inconclusive.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from mbbench import stats
from mbbench.errors import UsageError
from mbbench.measure.paired import Answers, Replicate
from mbbench.spec import Cell
from mbbench.stats import Interval

Metric = Literal["p50", "p99", "rss", "size", "top1"]
Outcome = Literal["pass", "fail", "inconclusive"]

DEFAULTS = ("p50:3%", "p99:10%", "rss:5%", "size:1%", "top1:-0.5pt")
_SIGNIFICANT = 0.05
_NOISY: tuple[Metric, ...] = ("p50", "p99", "rss")
_COUPLE = 2  # replicates that differ in which session was opened first


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
        metric, _, amount = text.partition(":")
        if metric not in get_args(Metric):
            raise UsageError(f"--fail-on {text}: unknown metric", f"choose one of {', '.join(get_args(Metric))}")
        pattern = r"-(\d+(?:\.\d+)?)pt" if metric == "top1" else r"(\d+(?:\.\d+)?)%"
        match = re.fullmatch(pattern, amount)
        if match is None:
            example = "top1:-0.5pt" if metric == "top1" else f"{metric}:3%"
            raise UsageError(f"--fail-on {text} has no limit that mbbench understands", f"write it like {example}")
        found[metric] = Limit(metric=metric, worse=float(match[1]) / 100)  # type: ignore[index, arg-type]
    return tuple(found.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """What one round measured of a cell, baseline and candidate alike: what the limits ask for.

    RSS is None where no kernel tells it, too.
    """

    replicates: tuple[Replicate, ...]
    answers: Answers | None
    baseline_rss_bytes: int | None
    candidate_rss_bytes: int | None
    baseline_size_bytes: int
    candidate_size_bytes: int


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    change: Change
    limit: Limit
    outcome: Outcome
    confirmed: bool | None = None  # whether a second round failed too; None: there was none


@dataclass(frozen=True, slots=True, kw_only=True)
class CellVerdict:
    """`rounds`: none where both artifacts are the same file, two where the first failed."""

    cell: Cell
    baseline_sha256: str
    candidate_sha256: str
    rounds: tuple[Readings, ...]
    verdicts: tuple[Verdict, ...]

    @property
    def outcome(self) -> Outcome:
        return worst(verdict.outcome for verdict in self.verdicts)


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    found = set(outcomes)
    if "fail" in found:
        return "fail"
    return "inconclusive" if "inconclusive" in found else "pass"


def change(metric: Metric, readings: Readings) -> Change:
    match metric:
        case "p50":
            return _p50(readings.replicates)
        case "p99":
            return _p99(readings.replicates)
        case "rss":
            return _ratio(metric, readings.baseline_rss_bytes, readings.candidate_rss_bytes)
        case "size":
            return _ratio(metric, readings.baseline_size_bytes, readings.candidate_size_bytes)
        case "top1":
            return _top1(readings.answers)


def judge(cells: Sequence[Sequence[tuple[Change, Limit]]]) -> list[tuple[Verdict, ...]]:
    """The verdicts of all cells and metrics together: the more are tested, the surer each failure must be."""
    tested = [change.p_value for cell in cells for change, _ in cell if change.p_value is not None]
    adjusted = iter(stats.holm(tested))

    def verdict(found: Change, limit: Limit) -> Verdict:
        p_value = None if found.p_value is None else next(adjusted)
        return Verdict(change=found, limit=limit, outcome=_outcome(found, limit, p_value))

    return [tuple(verdict(found, limit) for found, limit in cell) for cell in cells]


def in_doubt(verdicts: Iterable[Verdict]) -> bool:
    """Whether there is a failure that a second round could refute: size and answers would be the same again."""
    return any(verdict.outcome == "fail" and verdict.change.metric in _NOISY for verdict in verdicts)


def confirm(first: Verdict, second: Verdict) -> Verdict:
    """A failure counts only if an independent second round fails too; its figures are then the ones to go by."""
    if first.outcome != "fail" or first.change.metric not in _NOISY:
        return first
    return replace(second, confirmed=second.outcome == "fail")


def _outcome(found: Change, limit: Limit, p_value: float | None) -> Outcome:
    if found.change is None:
        return "inconclusive"
    worse = -found.change if limit.metric == "top1" else found.change
    if found.ci95 is None:
        return "fail" if worse > limit.worse else "pass"
    assert p_value is not None
    if p_value < _SIGNIFICANT and worse >= limit.worse and worse > 0:
        return "fail"
    most = -found.ci95.low if limit.metric == "top1" else found.ci95.high
    return "pass" if most < limit.worse or (worse <= 0 and p_value < _SIGNIFICANT) else "inconclusive"


def _p50(replicates: Sequence[Replicate]) -> Change:
    """How the latency changed at its centre: the log ratios of neighbouring calls, averaged over couples of replicates.

    Of each replicate the interquartile mean counts. It bears a quarter of disturbed pairs on either side, as latencies
    need; in 32 A/A rounds its standard deviation was 0.15 % where the median of the ratios had 0.20 %. Couples far off
    are trimmed: in one round of twenty a single pair of sessions differed by several percent for its whole life.
    """
    ratios = [_log_ratio(replicate) for replicate in replicates]
    couples = [sum(pair) / _COUPLE for pair in zip(ratios[::2], ratios[1::2], strict=True)]
    effect = stats.trimmed_effect(couples)
    baseline, candidate = (stats.median(samples) for samples in _pooled(replicates))
    return _effect("p50", baseline, candidate, effect)


def _log_ratio(replicate: Replicate) -> float:
    import numpy as np

    return stats.interquartile_mean(np.log(np.divide(replicate.candidate_ms, replicate.baseline_ms)).tolist())


def _p99(replicates: Sequence[Replicate]) -> Change:
    baseline, candidate = _pooled(replicates)
    needed = stats.samples_needed(0.99)
    if len(baseline) < needed:
        reason = f"needs {needed} samples, has {len(baseline)}"
        return Change(metric="p99", baseline=None, candidate=None, change=None, reason=reason)

    def log_ratio(couples: Sequence[Sequence[Replicate]]) -> float:
        own, other = _pooled([replicate for couple in couples for replicate in couple])
        return math.log(stats.percentile(other, 0.99) / stats.percentile(own, 0.99))

    couples = [replicates[place : place + _COUPLE] for place in range(0, len(replicates), _COUPLE)]
    effect = stats.jackknife_effect(log_ratio, couples)
    return _effect("p99", stats.percentile(baseline, 0.99), stats.percentile(candidate, 0.99), effect)


def _pooled(replicates: Sequence[Replicate]) -> tuple[list[float], list[float]]:
    return (
        [sample for replicate in replicates for sample in replicate.baseline_ms],
        [sample for replicate in replicates for sample in replicate.candidate_ms],
    )


def _effect(metric: Metric, baseline: float, candidate: float, effect: stats.Effect | None) -> Change:
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


def _ratio(metric: Metric, baseline: int | None, candidate: int | None) -> Change:
    if baseline is None or candidate is None:
        reason = "the kernel does not tell it here"
        return Change(metric=metric, baseline=baseline, candidate=candidate, change=None, reason=reason)
    return Change(metric=metric, baseline=baseline, candidate=candidate, change=(candidate - baseline) / baseline)


def _top1(answers: Answers | None) -> Change:
    """McNemar's test: the same images, so that only those count which one alone got right."""
    assert answers is not None
    lost, gained, n = answers.only_baseline_right, answers.only_candidate_right, answers.images
    if lost is None or gained is None or answers.baseline_right is None or answers.candidate_right is None:
        return Change(metric="top1", baseline=None, candidate=None, change=None, reason="there are no labels to go by")
    interval = stats.paired_interval(gained, lost, n)
    return Change(
        metric="top1",
        baseline=answers.baseline_right / n,
        candidate=answers.candidate_right / n,
        change=(gained - lost) / n,
        ci95=interval,
        p_value=stats.mcnemar(lost, gained),
    )
