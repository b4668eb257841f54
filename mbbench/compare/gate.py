"""What a CI gate decides, as pure functions: limits, changes with their uncertainty, verdicts.

A metric whose change is beyond its limit is measured a second time, in new processes. It fails if that round's change
is beyond the limit too, and both together show for certain that it got worse (Holm's adjusted p is below 0.05, over all
cells and metrics). It passes if its 95 % interval ends below the limit. Anything else is inconclusive.

Two rounds that agree guard against what a test cannot know: in 125 A/A rounds beside a training network, 3 were more
than 1 % off. A slowdown of 2 % laid on pairs of them was found every time at a limit of 1 %, and 83 times of 100 where
each round had to be significant by itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from mbbench import stats
from mbbench.compare import changes
from mbbench.compare.changes import Change, Limit, Metric
from mbbench.measure.jobs.pair import Answers, Replicate

Outcome = Literal["pass", "fail", "inconclusive"]

_SIGNIFICANT = 0.05
_NOISY: tuple[Metric, ...] = ("p50", "p99", "rss")
_COUPLE = 2  # replicates that differ in which session was opened first


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
class Verdict:
    change: Change
    limit: Limit
    outcome: Outcome
    confirmed: bool | None = None  # whether a second round was beyond the limit too; None: there was none


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    found = set(outcomes)
    if "fail" in found:
        return "fail"
    return "inconclusive" if "inconclusive" in found else "pass"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A metric's change over all rounds, and in each of them."""

    limit: Limit
    whole: Change
    rounds: tuple[Change, ...]

    @property
    def noisy(self) -> bool:
        """Whether measuring it again may give something else, as of size and answers it does not."""
        return self.limit.metric in _NOISY

    def suspect(self, index: int) -> bool:
        """Whether that round's change is beyond the limit, certain or not."""
        return self.rounds[index].worse > self.limit.worse


def finding(limit: Limit, rounds: Sequence[Readings], spread: float = 0.0, known_from: int = 0) -> Finding:
    """`spread`: the standard deviation of a change where there is none, from `known_from` rounds of calibration."""

    def of(some: Sequence[Readings]) -> Change:
        return change(limit.metric, some, spread, known_from)

    return Finding(limit=limit, whole=of(rounds), rounds=tuple(of([one]) for one in rounds))


def in_doubt(findings: Iterable[Finding]) -> bool:
    """Whether a second round is called for: it could refute what the first suggests."""
    return any(found.noisy and found.suspect(0) for found in findings)


def change(metric: Metric, rounds: Sequence[Readings], spread: float = 0.0, known_from: int = 0) -> Change:
    """Over all rounds together; `spread` and `known_from` as in `finding`."""
    replicates = [replicate for readings in rounds for replicate in readings.replicates]
    match metric:
        case "p50":
            return _p50(replicates)
        case "p99":
            return _p99(replicates)
        case "rss":
            own = _mean([readings.baseline_rss_bytes for readings in rounds])
            other = _mean([readings.candidate_rss_bytes for readings in rounds])
            return changes.from_readings(metric, own, other, spread / math.sqrt(len(rounds)), known_from)
        case "size":
            return changes.from_readings(metric, rounds[0].baseline_size_bytes, rounds[0].candidate_size_bytes)
        case "top1":
            return _top1(rounds[0].answers)


def judge(cells: Sequence[Sequence[Finding]]) -> list[tuple[Verdict, ...]]:
    """The verdicts of all cells and metrics together: the more are tested, the surer each failure must be."""
    tested = [found.whole.p_value for cell in cells for found in cell if found.whole.p_value is not None]
    adjusted = iter(stats.holm(tested))

    def verdict(found: Finding) -> Verdict:
        p_value = None if found.whole.p_value is None else next(adjusted)
        twice = found.noisy and len(found.rounds) > 1 and found.suspect(0)
        return Verdict(
            change=found.whole,
            limit=found.limit,
            outcome=_outcome(found, p_value),
            confirmed=found.suspect(1) if twice else None,
        )

    return [tuple(verdict(found) for found in cell) for cell in cells]


def _outcome(found: Finding, p_value: float | None) -> Outcome:
    whole, limit = found.whole, found.limit.worse
    if whole.change is None:
        return "inconclusive"
    worse = whole.worse
    every_round = all(found.suspect(index) for index in range(len(found.rounds)))
    beyond = worse > limit and every_round and (len(found.rounds) > 1 or not found.noisy)
    if whole.ci95 is None or p_value is None:
        return "fail" if beyond else "pass"
    if beyond and p_value < _SIGNIFICANT:
        return "fail"
    most = -whole.ci95.low if whole.metric == "top1" else whole.ci95.high
    return "pass" if most < limit or (worse <= 0 and p_value < _SIGNIFICANT) else "inconclusive"


def _mean(values: Sequence[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return round(sum(known) / len(known)) if len(known) == len(values) else None


def _p50(replicates: Sequence[Replicate]) -> Change:
    """How the latency changed at its centre: the log ratios of neighbouring calls, averaged over replicates.

    Of each replicate the interquartile mean counts. It bears a quarter of disturbed pairs on either side, as latencies
    need; in 32 A/A rounds its standard deviation was 0.15 % where the median of the ratios had 0.20 %. Replicates far
    off are trimmed: in 2 of 112 rounds some pairs of sessions differed by 10 % and more for their whole life.
    """
    effect = stats.trimmed_effect([_log_ratio(replicate) for replicate in replicates], alternating=True)
    baseline, candidate = (stats.median(samples) for samples in _pooled(replicates))
    return changes.from_effect("p50", baseline, candidate, effect)


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
    return changes.from_effect("p99", stats.percentile(baseline, 0.99), stats.percentile(candidate, 0.99), effect)


def _pooled(replicates: Sequence[Replicate]) -> tuple[list[float], list[float]]:
    return (
        [sample for replicate in replicates for sample in replicate.baseline_ms],
        [sample for replicate in replicates for sample in replicate.candidate_ms],
    )


def _top1(answers: Answers | None) -> Change:
    assert answers is not None
    lost, gained = answers.only_baseline_right, answers.only_candidate_right
    if lost is None or gained is None or answers.baseline_right is None or answers.candidate_right is None:
        return Change(metric="top1", baseline=None, candidate=None, change=None, reason="there are no labels to go by")
    return changes.from_answers(lost, gained, (answers.baseline_right, answers.candidate_right), answers.images)
