"""Failures, figures that could not be given, and what disturbed the measurement; each once."""

from __future__ import annotations

from collections.abc import Sequence

from mbbench.result import Result
from mbbench.stats import samples_needed

_DRIFT = 0.05  # of the first quarter's median: what a reader should hear of
_MANY_OUTLIERS = 0.01
_NAMED = 6


def notes(results: Sequence[Result]) -> list[str]:
    """Failures, figures that could not be given, and what disturbed the measurement; each once."""
    notes = [
        f"{result.cell.label} failed: {result.failure.cause}; {result.failure.remedy}."
        for result in results
        if result.failure is not None
    ]
    latencies = [(result, result.measured.latency) for result in results]
    unsettled = [
        f"{result.cell.label} ({latency.warm_up.seconds:.1f} s)"
        for result, latency in latencies
        if latency is not None and not latency.warm_up.steady
    ]
    if unsettled:
        notes.append(f"Latency had not settled when warm-up ended: {_some(unsettled)}.")
    imprecise = [
        f"{result.cell.label} (± {(ci.high - ci.low) / 2 / latency.median_ms * 100:.1f} %)"
        for result, latency in latencies
        if latency is not None and latency.imprecise and (ci := latency.median_ci95_ms) is not None
    ]
    if imprecise:
        notes.append(
            f"Imprecise, since time was up before the median was known to 1 %: {_some(imprecise)}; take"
            " --profile rigorous, or a quieter machine."
        )
    drifted = [
        f"{result.cell.label} ({latency.drift * 100:+.0f} %)"
        for result, latency in latencies
        if latency is not None and latency.drift is not None and abs(latency.drift) >= _DRIFT
    ]
    if drifted:
        notes.append(
            f"Latency drifted between the first and the last quarter: {_some(drifted)}; look for heat, clock rates"
            " and neighbours, and compare by `mbbench check`, where they drop out."
        )
    odd = [
        f"{result.cell.label} ({latency.outliers} of {latency.n})"
        for result, latency in latencies
        if latency is not None and latency.outliers is not None and latency.outliers >= _MANY_OUTLIERS * latency.n
    ]
    if odd:
        notes.append(f"Outliers, which are counted and kept: {_some(odd)}; something else used these cores.")
    for name, q in (("p90", 0.90), ("p99", 0.99)):
        short = [
            f"{result.cell.label} ({latency.n})"
            for result, latency in latencies
            if latency is not None and f"latency.{name}_ms" in result.reasons
        ]
        if short:
            notes.append(f"No {name}, which needs {samples_needed(q)} samples: {_some(short)}.")
    for result in results:
        for scenario in result.settings.scenarios:
            if (reason := result.reasons.get(f"served.{scenario}")) is not None:
                notes.append(f"No {scenario} of {result.cell.label}: {reason}.")
    for result in results:
        for check in result.conditions:
            if check.status == "warn":
                notes.append(f"{check.name}: {check.found}; {check.remedy}.")
    return list(dict.fromkeys(notes))


def _some(names: Sequence[str]) -> str:
    """The first of a long list; a report's tables have them all."""
    rest = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
