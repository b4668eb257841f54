"""Notes on results: failures, missing figures, and disturbances of the measurement."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

from mbbench.report.names import namer
from mbbench.result import Result
from mbbench.stats import samples_needed

_MAX_DRIFT = 0.05  # relative to the first quarter's median; a larger drift gets a note
_MAX_OUTLIERS = 0.01  # share of the runs; more outliers get a note
_MAX_NAMES = 6


def collect_notes(results: Sequence[Result]) -> list[str]:
    """Return a sentence for each failure, missing figure and disturbance, without duplicates."""
    name = namer(results)
    notes = [
        f"{name(result)} {'is not supported' if result.failure.is_unsupported else 'failed'}: {result.failure.cause};"
        f" {result.failure.remedy}."
        for result in results
        if result.failure is not None
    ]
    latencies = [(result, result.measured.latency) for result in results]
    unsettled = [
        f"{name(result)} ({latency.warm_up.seconds:.1f} s)"
        for result, latency in latencies
        if latency is not None and not latency.warm_up.steady
    ]
    if unsettled:
        notes.append(f"Latency had not settled when the warm-up ended: {_enumerate(unsettled)}.")
    imprecise = [
        f"{name(result)} (± {(ci.high - ci.low) / 2 / latency.median_ms * 100:.1f} %)"
        for result, latency in latencies
        if latency is not None and latency.imprecise and (ci := latency.median_ci95_ms) is not None
    ]
    if imprecise:
        notes.append(
            f"The time limit was reached before the median was known to 1 %: {_enumerate(imprecise)}; use"
            " --profile rigorous or a quieter machine."
        )
    drifted = [
        f"{name(result)} ({latency.drift * 100:+.0f} %)"
        for result, latency in latencies
        if latency is not None and latency.drift is not None and abs(latency.drift) >= _MAX_DRIFT
    ]
    if drifted:
        notes.append(
            f"Latency drifted from the first to the last quarter of the runs: {_enumerate(drifted)}; check"
            " temperature, clock rates and neighbors, and compare with `mbbench check`, where drift cancels out."
        )
    with_outliers = [
        f"{name(result)} ({latency.outliers} of {latency.n})"
        for result, latency in latencies
        if latency is not None and latency.outliers is not None and latency.outliers >= _MAX_OUTLIERS * latency.n
    ]
    if with_outliers:
        notes.append(
            f"Outliers, included in every figure: {_enumerate(with_outliers)}; something else used these cores."
        )
    for percentile, q in (("p90", 0.90), ("p99", 0.99)):
        short = [
            f"{name(result)} ({latency.n})"
            for result, latency in latencies
            if latency is not None and f"latency.{percentile}_ms" in result.reasons
        ]
        if short:
            notes.append(f"No {percentile}, which needs {samples_needed(q)} samples: {_enumerate(short)}.")
    for result in results:
        for scenario in result.settings.scenarios:
            if (reason := result.reasons.get(f"served.{scenario}")) is not None:
                notes.append(f"No {scenario} result for {name(result)}: {reason}.")
    for result in results:
        for check in result.conditions:
            if check.status == "warn":
                notes.append(f"{check.name}: {check.found}; {check.remedy}.")
    return list(dict.fromkeys(notes))


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


def _enumerate(names: Sequence[str]) -> str:
    """Return the first six names and the number of the others."""
    rest = len(names) - _MAX_NAMES
    return ", ".join(names[:_MAX_NAMES]) + (f" and {rest} more" if rest > 0 else "")
