"""The decisions of a CI gate, as pure functions: from readings to changes with their uncertainty to verdicts.

If a metric's change exceeds its limit, the cell is measured a second time, in new processes. The metric fails if the
second round's change exceeds the limit too, and both rounds together show that it got worse (p below 0.05 after Holm's
correction over all cells and metrics). It passes if the 95 % interval of its change ends below the limit. If its noise
is unknown, as that of memory without a calibration, it passes if no round exceeds the limit and fails if both do.
Anything else is inconclusive. A cell that could not be measured is an error.

Requiring two rounds that agree guards against errors that a significance test cannot see: in 125 A/A rounds next to a
training network, 3 were off by more than 1 %. When a slowdown of 2 % was added to pairs of these rounds, a gate with a
limit of 1 % found it in 100 of 100 pairs, against 83 if each round had to be significant by itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from mbbench import stats
from mbbench.compare import changes
from mbbench.compare.changes import Change, Limit, Metric
from mbbench.compare.statistics import holm
from mbbench.measure.jobs.pair import PairedAnswers, Replicate

Outcome = Literal["pass", "fail", "inconclusive", "error"]

_SEVERITY: tuple[Outcome, ...] = ("pass", "inconclusive", "error", "fail")
_SIGNIFICANT = 0.05
_NOISY: tuple[Metric, ...] = ("p50", "p99", "rss", "added-rss")
_COUPLE = 2  # replicates that differ in which session was opened first


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """What one round measured of a cell's baseline and candidate.

    A metric without a limit is not measured: it has no replicates, or None. A limit on RSS or added RSS measures both;
    they are None also if the kernel does not report them. Older records have no added RSS.
    """

    replicates: tuple[Replicate, ...]
    answers: PairedAnswers | None
    baseline_rss_bytes: int | None
    candidate_rss_bytes: int | None
    baseline_size_bytes: int
    candidate_size_bytes: int
    baseline_added_rss_bytes: int | None = None
    candidate_added_rss_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The outcome for one metric of a cell."""

    change: Change
    limit: Limit
    outcome: Outcome
    confirmed: bool | None = None  # whether a second round exceeded the limit too; None: it was not needed


def worst_outcome(outcomes: Iterable[Outcome]) -> Outcome:
    """Return the worst of `outcomes`; a pass if there are none. A failure is worse than an error."""
    return max(outcomes, key=_SEVERITY.index, default="pass")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A metric's change over all rounds together, and in each round."""

    limit: Limit
    overall: Change
    rounds: tuple[Change, ...]

    @property
    def is_noisy(self) -> bool:
        """Whether a second measurement may differ; size and answers are the same in every round."""
        return self.limit.metric in _NOISY

    def exceeds_limit(self, index: int) -> bool:
        """Return whether the change in round `index` exceeds the limit, significant or not."""
        return self.rounds[index].worsening > self.limit.worse


def assess(limit: Limit, rounds: Sequence[Readings], spread: float = 0.0, calibration_rounds: int = 0) -> Finding:
    """Return the finding on the limit's metric.

    `spread` is the standard deviation that the metric's change has if nothing changed, estimated from
    `calibration_rounds` rounds of `mbbench calibrate`; 0 if the cell was not calibrated.
    """

    def change(some_rounds: Sequence[Readings]) -> Change:
        return compute_change(limit.metric, some_rounds, spread, calibration_rounds)

    return Finding(limit=limit, overall=change(rounds), rounds=tuple(change([readings]) for readings in rounds))


def needs_second_round(findings: Iterable[Finding]) -> bool:
    """Return whether the first round suggests a failure that a second round could refute."""
    return any(finding.is_noisy and finding.exceeds_limit(0) for finding in findings)


def compute_change(
    metric: Metric, rounds: Sequence[Readings], spread: float = 0.0, calibration_rounds: int = 0
) -> Change:
    """Return the metric's change over all rounds together; `spread` and `calibration_rounds` as in `assess`."""
    replicates = [replicate for readings in rounds for replicate in readings.replicates]
    match metric:
        case "p50":
            return _p50(replicates)
        case "p99":
            return _p99(replicates)
        case "rss" | "added-rss":
            sides = [
                (readings.baseline_rss_bytes, readings.candidate_rss_bytes)
                if metric == "rss"
                else (readings.baseline_added_rss_bytes, readings.candidate_added_rss_bytes)
                for readings in rounds
            ]
            baseline, candidate = _mean([before for before, _ in sides]), _mean([after for _, after in sides])
            spread_of_mean = spread / math.sqrt(len(rounds))
            return changes.from_readings(metric, baseline, candidate, spread_of_mean, calibration_rounds)
        case "size":
            return changes.from_readings(metric, rounds[0].baseline_size_bytes, rounds[0].candidate_size_bytes)
        case "top1":
            return _top1(rounds[0].answers)


def judge(cells: Sequence[Sequence[Finding]]) -> list[tuple[Verdict, ...]]:
    """Return the verdicts on each cell's findings.

    All cells and metrics are judged together: Holm's correction demands stronger evidence the more are tested.
    """
    p_values = [finding.overall.p_value for cell in cells for finding in cell if finding.overall.p_value is not None]
    adjusted = iter(holm(p_values))

    def verdict(finding: Finding) -> Verdict:
        p_value = None if finding.overall.p_value is None else next(adjusted)
        second_round_needed = finding.is_noisy and len(finding.rounds) > 1 and finding.exceeds_limit(0)
        return Verdict(
            change=finding.overall,
            limit=finding.limit,
            outcome=_outcome(finding, p_value),
            confirmed=finding.exceeds_limit(1) if second_round_needed else None,
        )

    return [tuple(verdict(finding) for finding in cell) for cell in cells]


def _outcome(finding: Finding, p_value: float | None) -> Outcome:
    overall, limit = finding.overall, finding.limit.worse
    if overall.change is None:
        return "inconclusive"
    worsening = overall.worsening
    exceeding = [finding.exceeds_limit(index) for index in range(len(finding.rounds))]
    exceeded = worsening > limit and all(exceeding) and (len(exceeding) > 1 or not finding.is_noisy)
    if overall.ci95 is None or p_value is None:
        if exceeded:
            return "fail"
        return "inconclusive" if any(exceeding) else "pass"
    if exceeded and p_value < _SIGNIFICANT:
        return "fail"
    highest = -overall.ci95.low if overall.metric == "top1" else overall.ci95.high
    return "pass" if highest < limit or (worsening <= 0 and p_value < _SIGNIFICANT) else "inconclusive"


def _mean(values: Sequence[int | None]) -> int | None:
    """Return the rounded mean, or None if a value is unknown."""
    known = [value for value in values if value is not None]
    return round(sum(known) / len(known)) if len(known) == len(values) else None


def _p50(replicates: Sequence[Replicate]) -> Change:
    """Return the change of the typical latency, from the log ratios of neighboring calls, averaged over replicates.

    A replicate counts with the interquartile mean of its log ratios, which tolerates a quarter of disturbed pairs on
    either side, as latencies require; in 32 A/A rounds its standard deviation was 0.15 %, that of the median 0.20 %.
    The mean over replicates is trimmed: in 2 of 112 rounds some pairs of sessions differed by 10 % and more as long as
    they were open.
    """
    effect = stats.trimmed_effect([_log_ratio(replicate) for replicate in replicates], alternating=True)
    baseline, candidate = (stats.median(samples) for samples in _pooled(replicates))
    return changes.from_effect("p50", baseline, candidate, effect)


def _log_ratio(replicate: Replicate) -> float:
    import numpy as np

    return stats.interquartile_mean(np.log(np.divide(replicate.candidate_ms, replicate.baseline_ms)).tolist())


def _p99(replicates: Sequence[Replicate]) -> Change:
    """Return the change of the p99 of all samples; its error is a jackknife estimate over couples of replicates."""
    baseline, candidate = _pooled(replicates)
    needed = stats.samples_needed(0.99)
    if len(baseline) < needed:
        reason = f"needs {needed} samples, has {len(baseline)}"
        return Change(metric="p99", baseline=None, candidate=None, change=None, reason=reason)

    def log_ratio(couples: Sequence[Sequence[Replicate]]) -> float:
        before, after = _pooled([replicate for couple in couples for replicate in couple])
        return math.log(stats.percentile(after, 0.99) / stats.percentile(before, 0.99))

    couples = [replicates[start : start + _COUPLE] for start in range(0, len(replicates), _COUPLE)]
    effect = stats.jackknife_effect(log_ratio, couples)
    return changes.from_effect("p99", stats.percentile(baseline, 0.99), stats.percentile(candidate, 0.99), effect)


def _pooled(replicates: Sequence[Replicate]) -> tuple[list[float], list[float]]:
    """Return all samples of the baseline and of the candidate, in ms."""
    return (
        [sample for replicate in replicates for sample in replicate.baseline_ms],
        [sample for replicate in replicates for sample in replicate.candidate_ms],
    )


def _top1(answers: PairedAnswers | None) -> Change:
    assert answers is not None
    lost, gained = answers.only_baseline_right, answers.only_candidate_right
    if lost is None or gained is None or answers.baseline_right is None or answers.candidate_right is None:
        return Change(metric="top1", baseline=None, candidate=None, change=None, reason="there are no usable labels")
    return changes.from_answers(lost, gained, (answers.baseline_right, answers.candidate_right), answers.images)
