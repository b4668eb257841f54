"""`mbbench compare`: what changed between two sets of stored results, cell by cell and metric by metric."""

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
from mbbench.compare.statistics import holm, superiority
from mbbench.errors import IncomparableError, UsageError
from mbbench.result import Accuracy, Latency, Result, Setup
from mbbench.spec import ModelSpec

Word = Literal["faster", "slower", "smaller", "bigger", "better", "worse", "same", "inconclusive"]

_SIGNIFICANT = 0.05
_WORDS: dict[Metric, tuple[Word, Word]] = {  # for a change for the better, for the worse
    "p50": ("faster", "slower"),
    "p99": ("faster", "slower"),
    "rss": ("smaller", "bigger"),
    "added-rss": ("smaller", "bigger"),
    "size": ("smaller", "bigger"),
    "top1": ("better", "worse"),
}
_NOT_RUNTIMES = ("mbbench", "numpy", "torch")  # torch is the runtime of the torch backends only


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricComparison:
    """The comparison of one metric of a cell, summed up in a word.

    `margin`: the largest difference that counts as the same. `effect_size`: how often a latency of B exceeds one of A
    (0.5: no difference); p50 only.
    """

    change: Change
    margin: Limit
    word: Word
    effect_size: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CellComparison:
    """The comparison of two results of one cell.

    `context_differences`: what else differs between them; empty unless that was allowed. `calibrated`: whether the
    intervals include how the metrics vary from process to process, as far as `mbbench calibrate` measured it.
    """

    before: Result
    after: Result
    context_differences: tuple[str, ...]
    metrics: tuple[MetricComparison, ...]
    calibrated: bool


def compare(
    first: Sequence[Result],
    second: Sequence[Result],
    margins: Sequence[Limit],
    noise_of: Callable[[Result], Noise | None],
    *,
    anyway: bool,
) -> list[CellComparison]:
    """Compare the newest result of each cell that both sets have.

    `noise_of` returns what `mbbench calibrate` measured for a result's cell: how much its metrics vary from process to
    process. Raises `IncomparableError` if machines, runtimes or settings differ, unless `anyway` is set, and
    `UsageError` if the sets have no cell in common.
    """
    pairs = list(_pairs(first, second))
    if not pairs:
        raise UsageError("the two files have no measured cell in common", "measure the same cells for both")
    differences = [context_differences(before, after) for before, after in pairs]
    distinct = list(dict.fromkeys(difference for of_pair in differences for difference in of_pair))
    if distinct and not anyway:
        raise IncomparableError(
            f"the results differ in {'; '.join(distinct)}", "measure both in the same way, or add --anyway"
        )
    noises = [noise_of(before) for before, _ in pairs]
    changes_of_pairs = [
        [_change(margin.metric, before, after, noise) for margin in margins]
        for (before, after), noise in zip(pairs, noises, strict=True)
    ]
    p_values = [change.p_value for of_pair in changes_of_pairs for change in of_pair if change.p_value is not None]
    adjusted = iter(holm(p_values))
    comparisons = []
    for (before, after), of_pair, differing, noise in zip(pairs, changes_of_pairs, differences, noises, strict=True):
        metrics = []
        for change, margin in zip(of_pair, margins, strict=True):
            p_value = None if change.p_value is None else next(adjusted)
            metrics.append(
                MetricComparison(
                    change=change,
                    margin=margin,
                    word=_word(change, margin, p_value),
                    effect_size=_effect_size(before, after) if change.metric == "p50" else None,
                )
            )
        comparisons.append(
            CellComparison(
                before=before,
                after=after,
                context_differences=differing,
                metrics=tuple(metrics),
                calibrated=noise is not None,
            )
        )
    return comparisons


def context_differences(before: Result, after: Result) -> tuple[str, ...]:
    """Return what differs besides the model.

    A difference between the measurements is due to the model only if nothing else differs.
    """
    differences = []
    if before.machine.id != after.machine.id:
        differences.append(f"machines ({before.machine.summary} and {after.machine.summary})")
    packages = [name for name in before.versions | after.versions if name not in _NOT_RUNTIMES]
    if before.cell.backend.startswith("torch"):
        packages.append("torch")
    for name in packages:
        versions = before.versions.get(name, "none"), after.versions.get(name, "none")
        if versions[0] != versions[1]:
            differences.append(f"runtimes ({name} {versions[0]} and {versions[1]})")
    for name in ("threads", "batch"):
        values = getattr(before.settings, name), getattr(after.settings, name)
        if values[0] != values[1]:
            differences.append(f"settings ({name} {values[0]} and {values[1]})")
    return tuple(differences)


def _pairs(first: Sequence[Result], second: Sequence[Result]) -> Iterator[tuple[Result, Result]]:
    """Yield the newest results of every cell that both sets measured, each once, in the order of `first`.

    A cell may differ in weights and pruned widths, which are what is compared. Of several candidates the one with the
    most similar setup is its partner.
    """
    befores, afters = ({r.setup: r for r in results if r.failure is None} for results in (first, second))
    afters_of: dict[tuple[str, Setup], list[Setup]] = {}
    for setup, after in afters.items():
        afters_of.setdefault((after.cell.role, _comparable(setup)), []).append(setup)
    candidates = [
        (setup, candidate)
        for setup, before in befores.items()
        for candidate in afters_of.get((before.cell.role, _comparable(setup)), ())
    ]
    partners: dict[Setup, Setup] = {}
    taken: set[Setup] = set()
    for setup, candidate in sorted(candidates, key=lambda pair: _similarity(*pair), reverse=True):
        if setup not in partners and candidate not in taken:
            partners[setup] = candidate
            taken.add(candidate)
    yield from ((before, afters[partners[setup]]) for setup, before in befores.items() if setup in partners)


def _comparable(setup: Setup) -> Setup:
    """Return the setup without what may differ between the two sides of a comparison."""
    model = setup.model
    network = ModelSpec(
        model.family, model.alpha, model.resolution, variant=model.variant, name=model.name, width=model.width
    )
    return setup.same_but(machine="", model=network, weights=None, threads=0, batch=0, data=None)


def _similarity(a: Setup, b: Setup) -> tuple[bool, ...]:
    """Return a key that is larger for more similar setups; machines, threads and batches that differ are refused."""
    fields = ("model", "threads", "batch", "machine", "weights", "data")
    return tuple(getattr(a, field) == getattr(b, field) for field in fields)


def _change(metric: Metric, before: Result, after: Result, noise: Noise | None) -> Change:
    floor = None if noise is None else noise.floors.get(metric)
    spread, rounds = (0.0, 0) if noise is None or floor is None else (floor.between, noise.rounds_of(metric))
    match metric:
        case "p50" | "p99":
            return _latency(metric, before.measured.latency, after.measured.latency, spread, rounds)
        case "rss":
            peaks = before.peak_rss_bytes(), after.peak_rss_bytes()
            return changes.from_readings(metric, *peaks, spread * math.sqrt(2), rounds)
        case "added-rss":
            added = before.added_rss_bytes(), after.added_rss_bytes()
            return changes.from_readings(metric, *added, spread * math.sqrt(2), rounds)
        case "size":
            sizes = [None if result.artifact is None else result.artifact.size_bytes for result in (before, after)]
            return changes.from_readings(metric, sizes[0], sizes[1])
        case "top1":
            fingerprints = [result.data and result.data.fingerprint for result in (before, after)]
            same_images = fingerprints[0] == fingerprints[1]
            return _top1(before.measured.accuracy, after.measured.accuracy, same_images=same_images)


def _latency(metric: Metric, before: Latency | None, after: Latency | None, spread: float, rounds: int) -> Change:
    """Return the change of a percentile.

    `spread`: the standard deviation of its logarithm from process to process, from `rounds` rounds of calibration.
    """
    unknown = partial(Change, metric=metric, baseline=None, candidate=None, change=None)
    if before is None or after is None:
        return unknown(reason="not measured")
    q = {"p50": 0.5, "p99": 0.99}[metric]
    samples, needed = min(before.n, after.n), max(stats.samples_needed(q), 100)
    if samples < needed:
        return unknown(reason=f"needs {needed} samples, has {samples}")
    statistic = stats.median if metric == "p50" else partial(stats.percentile, q=q)
    effect = stats.separate_effect(statistic, before.samples_ms, after.samples_ms, spread, rounds)
    return changes.from_effect(metric, statistic(before.samples_ms), statistic(after.samples_ms), effect)


def _top1(before: Accuracy | None, after: Accuracy | None, *, same_images: bool) -> Change:
    unknown = partial(Change, metric="top1", baseline=None, candidate=None, change=None)
    if before is None or after is None or before.wrong is None or after.wrong is None:
        return unknown(reason="the records do not list the misclassified images")
    if not same_images:
        return unknown(reason="the test images differ")
    lost, gained = len({*after.wrong} - {*before.wrong}), len({*before.wrong} - {*after.wrong})
    correct = before.images - len(before.wrong), after.images - len(after.wrong)
    return changes.from_answers(lost, gained, correct, before.images)


def _effect_size(before: Result, after: Result) -> float | None:
    latencies = before.measured.latency, after.measured.latency
    if latencies[0] is None or latencies[1] is None:
        return None
    return superiority(latencies[0].samples_ms, latencies[1].samples_ms)


def _word(change: Change, margin: Limit, p_value: float | None) -> Word:
    """Return "same", the direction of a significant change, or "inconclusive".

    "same": the 95 % interval of the change is within the margin (two one-sided tests at 2.5 %, Schuirmann 1987).
    """
    if change.change is None:
        return "inconclusive"
    better, worse = _WORDS[change.metric]
    if change.ci95 is None:
        if abs(change.worsening) <= margin.worse:
            return "same"
        return worse if change.worsening > 0 else better
    if max(-change.ci95.low, change.ci95.high) < margin.worse:
        return "same"
    assert p_value is not None
    if p_value < _SIGNIFICANT:
        return worse if change.worsening > 0 else better
    return "inconclusive"
