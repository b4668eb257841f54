"""The conclusions of a report, in sentences that claim no more than the intervals of the figures allow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mbbench.analysis.pairing import baselines_of, fp32_pairs
from mbbench.report import selection, units
from mbbench.report.names import Name, backend_label
from mbbench.report.selection import Measurement
from mbbench.result import Result, Top1Drop

_SIGNIFICANT = 0.05


def fastest_sentence(results: Sequence[Result]) -> str:
    """Return one sentence with the figures of the subject that has the lowest median latency.

    Calls of different batch sizes are not comparable: only the smallest batch size counts.
    """
    complete = selection.measurements(selection.subjects(results))
    if not complete:
        return "No measurement was completed."
    batch = min(measurement.latency.batch for measurement in complete)
    of_all_batches = len(complete)
    complete = [measurement for measurement in complete if measurement.latency.batch == batch]
    fastest = min(complete, key=lambda measurement: measurement.latency.median_ms)
    subject, latency = fastest.result, fastest.latency
    accuracy = subject.measured.accuracy
    per = "per image" if batch == 1 else f"per batch of {batch}"
    if len(complete) > 1:
        of_batch = f" of batch {batch}" if len(complete) < of_all_batches else ""
        per += f" ({_rank(fastest, complete, of_batch)})"
    parts = [f"{subject.cell.label}: {units.milliseconds(latency.median_ms)} {per}"]
    if accuracy is not None and accuracy.top1 is not None and subject.data is not None:
        parts.append(f"{units.percent(accuracy.top1)} top-1 on {subject.data.name}")
    if subject.artifact is not None:
        parts.append(f"{units.megabytes(subject.artifact.size_bytes)} on disk")
    for baseline in selection.measurements(baselines_of(subject, results)):
        if baseline.result.cell.model.family == "vgg16":
            ratio = units.ratio(baseline.latency.median_ms, latency.median_ms)
            parts.append(f"{ratio} faster than VGG16 on the same runtime")
    return ", ".join(parts) + "."


def _rank(fastest: Measurement, complete: Sequence[Measurement], of_batch: str) -> str:
    """Return that this is the lowest median, and how many others its interval cannot tell apart from it."""
    text = f"lowest median of {len(complete)} cells{of_batch}"
    interval = fastest.latency.median_ci95_ms
    if interval is None:
        return text
    tied = sum(
        other is not fastest and (ci := other.latency.median_ci95_ms) is not None and ci.low <= interval.high
        for other in complete
    )
    return f"{text}, statistically tied with {tied}" if tied else text


def conclusions(results: Sequence[Result], name: Name) -> Iterator[str]:
    """Yield the conclusions about the subjects on each chip: the fastest, the most accurate, what precision gains.

    With several chips, a sentence names its chip.
    """
    chips: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        if result.failure is None:
            chips.setdefault((result.machine.id, selection.chip(result)), []).append(result)
    if not chips:
        yield fastest_sentence(results)
    for (_, chip), group in chips.items():
        place = f"On {chip}: " if len(chips) > 1 else ""
        yield place + fastest_sentence(group)
        for comparable in selection.comparable_groups(selection.subjects(group)).values():
            for sentence in _most_accurate(comparable, name):
                yield place + sentence
        for sentence in _effects_of_precision(group):
            yield place + sentence


def failures(results: Sequence[Result], place: str) -> Iterator[str]:
    """Yield how many cells failed and how many their runtimes do not support; the reasons are under `place`."""
    count = len(results)
    unsupported = sum(result.failure is not None and result.failure.is_unsupported for result in results)
    failed = sum(result.failure is not None for result in results) - unsupported
    if failed:
        yield f"{failed} of {count} cells failed; the reasons are under {place}."
    if unsupported:
        verb = "is" if unsupported == 1 else "are"
        yield f"{unsupported} of {count} cells {verb} not supported here; the reasons are under {place}."


def _most_accurate(group: Sequence[Result], name: Name) -> Iterator[str]:
    """Yield a sentence on the most accurate cell, or on the fastest of those whose intervals overlap with its own."""
    rated = [
        (top1, accuracy.top1_ci95, measurement)
        for measurement in selection.measurements(group)
        if (accuracy := measurement.result.measured.accuracy) is not None and (top1 := accuracy.top1) is not None
    ]
    if len(rated) < 2:
        return
    best_top1, best_ci, best = max(rated, key=lambda row: (row[0], -row[2].latency.median_ms))
    lowest = best_top1 if best_ci is None else best_ci.low
    tied = [row for row in rated if row[1] is not None and row[1].high >= lowest] or [(best_top1, best_ci, best)]
    top1, ci, fast = min(tied, key=lambda row: row[2].latency.median_ms)
    if len(tied) == 1:
        yield (
            f"{name(best.result)} is the most accurate: {units.percent(best_top1, best_ci)} top-1 in"
            f" {units.milliseconds(best.latency.median_ms)}."
        )
        return
    assert best.result.measured.accuracy is not None
    gain = "" if fast is best else f", {units.ratio(best.latency.median_ms, fast.latency.median_ms)} faster"
    yield (
        f"{name(fast.result)} is the fastest of the {len(tied)} cells whose top-1 cannot be told from the highest"
        f" ({units.percent(best_top1)}, {name(best.result)}) on {best.result.measured.accuracy.images} images:"
        f" {units.percent(top1, ci)} in {units.milliseconds(fast.latency.median_ms)}{gain}."
    )


def _effects_of_precision(results: Sequence[Result]) -> Iterator[str]:
    """Yield a sentence for each runtime and lower precision: its latency relative to fp32, and what top-1 it loses."""
    groups: dict[tuple[str, str], list[tuple[Result, float]]] = {}
    subjects = selection.subjects(results)
    several = len({subject.cell.model for subject in subjects}) > 1
    for result, partner in fp32_pairs(subjects):
        median_ms, fp32_ms = result.median_ms(), partner.median_ms()
        if median_ms is not None and fp32_ms is not None:
            groups.setdefault((backend_label(result), result.cell.precision), []).append((result, median_ms / fp32_ms))
    for (backend, precision), group in groups.items():
        low, high = (f"{edge(ratio for _, ratio in group):.2f}" for edge in (min, max))
        span = low if low == high else f"{low} to {high}"
        networks = {result.cell.model for result, _ in group}
        drops = [accuracy.drop for result, _ in group
                 if (accuracy := result.measured.accuracy) is not None and accuracy.drop is not None]  # fmt: skip
        loss = f" and {_loss(drops)}" if drops else ""
        which = f"{len(networks)} network{'s' * (len(networks) > 1)}"
        if several and len(networks) == 1:
            (which,) = (network.label for network in networks)
        yield f"{backend} in {precision} takes {span} times as long as in fp32{loss} ({which})."


def _loss(drops: Sequence[Top1Drop]) -> str:
    """Return what top-1 was lost: the largest significant loss, or that there is none."""
    worst = max(drops, key=lambda drop: drop.share)
    significant = [drop for drop in drops if drop.share > 0 and drop.p_value < _SIGNIFICANT]
    if significant:
        largest = max(significant, key=lambda drop: drop.share)
        return f"loses {'up to ' * (len(drops) > 1)}{largest.share * 100:.2f} points of top-1"
    if worst.share <= 0:
        return "shows no loss of top-1"
    return (
        f"shows no significant loss of top-1 (at most {worst.share * 100:.2f} points, McNemar's p {worst.p_value:.2g})"
    )
