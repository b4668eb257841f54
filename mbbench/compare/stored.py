"""Two sets of stored results, cell by cell and metric by metric: what changed, and whether that can be said at all."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from mbbench import stats
from mbbench.compare import changes
from mbbench.compare.changes import Change, Limit, Metric
from mbbench.compare.noise import Noise
from mbbench.errors import IncomparableError, UsageError
from mbbench.result import Accuracy, Latency, Result

Word = Literal["faster", "slower", "smaller", "bigger", "better", "worse", "same", "inconclusive"]

_SIGNIFICANT = 0.05
_WORDS: dict[Metric, tuple[Word, Word]] = {  # for better, for worse
    "p50": ("faster", "slower"),
    "p99": ("faster", "slower"),
    "rss": ("smaller", "bigger"),
    "size": ("smaller", "bigger"),
    "top1": ("better", "worse"),
}
_NOT_RUNTIME = ("mbbench", "numpy", "torch")  # torch is, where it is the runtime


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One metric of one cell. `effect_size`: how often a latency of B exceeds one of A (0.5: no difference)."""

    change: Change
    margin: Limit  # within it two are the same
    word: Word
    effect_size: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CellComparison:
    before: Result
    after: Result
    unlike: tuple[str, ...]  # what differs besides, where that was allowed
    metrics: tuple[Comparison, ...]


def compare(
    first: Sequence[Result],
    second: Sequence[Result],
    margins: Sequence[Limit],
    noise_of: Callable[[Result], Noise | None],
    *,
    anyway: bool,
) -> list[CellComparison]:
    """Compare the newest result of each cell that both sets have.

    `noise_of` gives what `mbbench calibrate` found for a cell: how far its metrics differ from process to process.
    Raises `IncomparableError` for unlike machines, runtimes or settings unless told to compare `anyway`, and
    `UsageError` where the sets have no cell in common.
    """
    pairs = list(_pairs(first, second))
    if not pairs:
        raise UsageError("the two files have no measured cell in common", "run the same cells for both")
    unlike = [unlikeness(before, after) for before, after in pairs]
    reasons = list(dict.fromkeys(reason for found in unlike for reason in found))
    if reasons and not anyway:
        raise IncomparableError(
            f"the results are of unlike {'; '.join(reasons)}", "measure both alike, or give --anyway"
        )
    found_changes = [
        [_change(margin.metric, before, after, noise_of(before)) for margin in margins] for before, after in pairs
    ]
    adjusted = iter(stats.holm([c.p_value for own in found_changes for c in own if c.p_value is not None]))
    found = []
    for (before, after), own, reasons_of in zip(pairs, found_changes, unlike, strict=True):
        metrics = []
        for change, margin in zip(own, margins, strict=True):
            p_value = None if change.p_value is None else next(adjusted)
            metrics.append(
                Comparison(
                    change=change,
                    margin=margin,
                    word=_word(change, margin, p_value),
                    effect_size=_effect_size(before, after) if change.metric == "p50" else None,
                )
            )
        found.append(CellComparison(before=before, after=after, unlike=reasons_of, metrics=tuple(metrics)))
    return found


def unlikeness(before: Result, after: Result) -> tuple[str, ...]:
    """What makes two results of one cell incomparable: nothing of it may differ for a difference to mean the model."""
    found = []
    if before.machine.id != after.machine.id:
        found.append(f"machines ({before.machine.summary} and {after.machine.summary})")
    names = [name for name in before.versions | after.versions if name not in _NOT_RUNTIME]
    if before.cell.backend.startswith("torch"):
        names.append("torch")
    for name in names:
        versions = before.versions.get(name, "none"), after.versions.get(name, "none")
        if versions[0] != versions[1]:
            found.append(f"runtimes ({name} {versions[0]} and {versions[1]})")
    for name in ("threads", "batch"):
        values = getattr(before.settings, name), getattr(after.settings, name)
        if values[0] != values[1]:
            found.append(f"settings ({name} {values[0]} and {values[1]})")
    return tuple(found)


def _pairs(first: Sequence[Result], second: Sequence[Result]) -> Iterator[tuple[Result, Result]]:
    newest = [
        {(r.cell.role, r.cell.model.label, *changes.name_of(r.cell)): r for r in results if r.failure is None}
        for results in (first, second)
    ]
    for name, before in newest[0].items():
        if name in newest[1]:
            yield before, newest[1][name]


def _change(metric: Metric, before: Result, after: Result, noise: Noise | None) -> Change:
    floor = None if noise is None else noise.floors.get(metric)
    spread = 0.0 if floor is None else floor.between
    match metric:
        case "p50" | "p99":
            return _latency(metric, before.measured.latency, after.measured.latency, spread)
        case "rss":
            peaks = before.peak_rss_bytes(), after.peak_rss_bytes()
            return changes.from_readings(metric, *peaks, spread * math.sqrt(2), 0 if noise is None else noise.rounds)
        case "size":
            sizes = [None if result.artifact is None else result.artifact.size_bytes for result in (before, after)]
            return changes.from_readings(metric, sizes[0], sizes[1])
        case "top1":
            images = [result.data and result.data.fingerprint for result in (before, after)]
            return _top1(before.measured.accuracy, after.measured.accuracy, same_images=images[0] == images[1])


def _latency(metric: Metric, before: Latency | None, after: Latency | None, spread: float) -> Change:
    nothing = partial(Change, metric=metric, baseline=None, candidate=None, change=None)
    if before is None or after is None:
        return nothing(reason="it was not measured")
    q = {"p50": 0.5, "p99": 0.99}[metric]
    fewest, needed = min(before.n, after.n), max(stats.samples_needed(q), 100)
    if fewest < needed:
        return nothing(reason=f"needs {needed} samples, has {fewest}")
    statistic = stats.median if metric == "p50" else partial(stats.percentile, q=q)
    effect = stats.separate_effect(statistic, before.samples_ms, after.samples_ms, spread)
    return changes.from_effect(metric, statistic(before.samples_ms), statistic(after.samples_ms), effect)


def _top1(before: Accuracy | None, after: Accuracy | None, *, same_images: bool) -> Change:
    nothing = partial(Change, metric="top1", baseline=None, candidate=None, change=None)
    if before is None or after is None or before.wrong is None or after.wrong is None:
        return nothing(reason="the records do not tell which images were answered wrongly")
    if not same_images:
        return nothing(reason="the images are not the same")
    lost, gained = len({*after.wrong} - {*before.wrong}), len({*before.wrong} - {*after.wrong})
    rights = before.images - len(before.wrong), after.images - len(after.wrong)
    return changes.from_answers(lost, gained, rights, before.images)


def _effect_size(before: Result, after: Result) -> float | None:
    latencies = before.measured.latency, after.measured.latency
    if latencies[0] is None or latencies[1] is None:
        return None
    return stats.superiority(latencies[0].samples_ms, latencies[1].samples_ms)


def _word(change: Change, margin: Limit, p_value: float | None) -> Word:
    if change.change is None:
        return "inconclusive"
    better, worse = _WORDS[change.metric]
    if change.ci95 is None:
        if abs(change.worse) <= margin.worse:
            return "same"
        return worse if change.worse > 0 else better
    assert p_value is not None
    if p_value < _SIGNIFICANT:
        return worse if change.worse > 0 else better
    return "same" if max(-change.ci95.low, change.ci95.high) < margin.worse else "inconclusive"
