"""Notes on results: failures, missing figures, and disturbances of the measurement."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePath

from mbbench.doctor import Check
from mbbench.errors import list_first
from mbbench.report.names import Name, namer
from mbbench.result import Result
from mbbench.stats import Interval, samples_needed, wilson_interval

_MAX_DRIFT = 0.05  # relative to the first quarter's median; a larger drift gets a note
_MAX_OUTLIERS = 0.01  # share of the runs; more outliers get a note
_FROM_FILES = ("file", "imported")  # origins of weights whose preprocessing mbbench cannot know


def collect_notes(results: Sequence[Result]) -> list[str]:
    """Return a sentence for each failure, missing figure and disturbance, without duplicates."""
    name = namer(results)
    notes = [
        f"{name(result)} {'is not supported' if result.failure.is_unsupported else 'failed'}: {result.failure.cause};"
        f" {result.failure.remedy}."
        for result in results
        if result.failure is not None
    ]
    notes += _skipped_notes(results)
    notes += _inputs_notes(results, name)
    latencies = [(result, result.measured.latency) for result in results]
    unsettled = [
        f"{name(result)} ({latency.warm_up.seconds:.1f} s)"
        for result, latency in latencies
        if latency is not None and not latency.warm_up.steady
    ]
    if unsettled:
        notes.append(f"Latency had not settled when the warm-up ended: {list_first(unsettled)}.")
    imprecise = [
        f"{name(result)} (± {(ci.high - ci.low) / 2 / latency.median_ms * 100:.1f} %)"
        for result, latency in latencies
        if latency is not None and latency.imprecise and (ci := latency.median_ci95_ms) is not None
    ]
    if imprecise:
        notes.append(
            f"The time limit was reached before the median was known to 1 %: {list_first(imprecise)}; use"
            " --profile rigorous or a quieter machine."
        )
    drifted = [
        f"{name(result)} ({latency.drift * 100:+.0f} %)"
        for result, latency in latencies
        if latency is not None and latency.drift is not None and abs(latency.drift) >= _MAX_DRIFT
    ]
    if drifted:
        notes.append(
            f"Latency drifted from the first to the last quarter of the runs: {list_first(drifted)}; check"
            " temperature, clock rates and neighbors, and compare with `mbbench check`, where drift cancels out."
        )
    with_outliers = [
        f"{name(result)} ({latency.outliers} of {latency.n})"
        for result, latency in latencies
        if latency is not None and latency.outliers is not None and latency.outliers >= _MAX_OUTLIERS * latency.n
    ]
    if with_outliers:
        notes.append(
            f"Outliers, included in every figure: {list_first(with_outliers)}; something else used these cores."
        )
    for percentile, q in (("p90", 0.90), ("p99", 0.99)):
        short = [
            f"{name(result)} ({latency.n})"
            for result, latency in latencies
            if latency is not None and f"latency.{percentile}_ms" in result.reasons
        ]
        if short:
            notes.append(f"No {percentile}, which needs {samples_needed(q)} samples: {list_first(short)}.")
    for result in results:
        for scenario in result.settings.scenarios:
            if (reason := result.reasons.get(f"served.{scenario}")) is not None:
                notes.append(f"No {scenario} result for {name(result)}: {reason}.")
    warnings: dict[str, list[Check]] = {}
    for result in results:
        for check in result.conditions:
            if check.status == "warn":
                warnings.setdefault(check.name, []).append(check)
    notes += [_warning(checks) for checks in warnings.values()]
    return list(dict.fromkeys(notes))


def _warning(checks: Sequence[Check]) -> str:
    """Return a sentence for the warnings of one condition: the first one, and how many cells have another like it."""
    first, *others = checks
    alike = sum(check != first for check in others)
    more = f", and the like in {alike} other cell{'s' * (alike > 1)}" if alike else ""
    return f"{first.name}: {first.found}{more}; {first.remedy}."


def _skipped_notes(results: Sequence[Result]) -> Iterator[str]:
    """Yield a note on test images that were left out because they are broken."""
    for data in dict.fromkeys(result.data for result in results):
        if data is not None and data.skipped:
            total = data.images + data.skipped
            yield f"{data.skipped} of {total} test images of {data.name} cannot be decoded and are left out."


def _inputs_notes(results: Sequence[Result], name: Name) -> Iterator[str]:
    """Yield a note on networks from files that look as if their inputs or labels are wrong.

    Judged is PyTorch's top-1 in fp32, from which the measured one and its drop differ, so that a loss through a lower
    precision or a runtime is not blamed on the inputs.
    """
    check = (
        "check that the mean and std (--mean, --std), the order of channels (--channels) and the order of labels"
        " (--labels) are those that the checkpoint was trained with"
    )
    imported = [result for result in results if result.weights is not None and result.weights.origin in _FROM_FILES]
    lowest = [name(result) for result in imported if _is_chance(result)]
    if lowest:
        yield f"Top-1 is no better than chance: {list_first(lowest)}; {check}."
    below = [name(result) for result in imported if not _is_chance(result) and _is_far_below_calibration(result)]
    if below:
        yield f"Top-1 is less than half that on the calibration images: {list_first(below)}; {check}."


def _fp32_top1(result: Result) -> Interval | None:
    """Return the interval of PyTorch's top-1 in fp32, or None without labels."""
    accuracy = result.measured.accuracy
    if accuracy is None or accuracy.top1 is None or accuracy.drop is None:
        return None
    return wilson_interval(round((accuracy.top1 + accuracy.drop.share) * accuracy.images), accuracy.images)


def _is_chance(result: Result) -> bool:
    """Return whether top-1 is no better than guessing one of the network's classes."""
    top1 = _fp32_top1(result)
    return top1 is not None and top1.low <= 1 / result.cell.model.classes


def _is_far_below_calibration(result: Result) -> bool:
    """Return whether top-1 is less than half the share of right answers on images held out from calibration."""
    top1, quantization = _fp32_top1(result), result.quantization
    if top1 is None or quantization is None or quantization.judged_by != "top1":
        return False
    return top1.high < quantization.chosen.share / 2


def noise_warning(results: Sequence[Result]) -> tuple[str, ...]:
    """Return a warning if INT8 was calibrated on random noise instead of images."""
    if any(result.quantization and result.quantization.calibration == "random" for result in results):
        return ("INT8 was calibrated on RANDOM NOISE: its accuracy is meaningless.",)
    return ()


def weights_notes(results: Sequence[Result]) -> tuple[str, ...]:
    """Return how each checkpoint was read, if it was not read as it is: which copy, prefix and dtype."""
    lines = [
        f"Weights {PurePath(result.cell.weights or '').name}: {', '.join(result.weights.notes)}."
        for result in results
        if result.weights is not None and result.weights.notes
    ]
    return tuple(dict.fromkeys(lines))
