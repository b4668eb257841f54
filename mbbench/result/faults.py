"""What is wrong with a stored record, beyond the types and bounds of its fields, which decoding checks."""

from __future__ import annotations

from math import inf

from mbbench.families import FAMILIES, FILE_FAMILIES
from mbbench.result.measured import Accuracy, Latency
from mbbench.result.record import SCHEMA, Result

_FAMILIES = frozenset((*FAMILIES, *FILE_FAMILIES))


def fault(result: Result, *, samples: bool = True, figures: bool = True) -> str | None:
    """Return why no run can have written this record, or None.

    `samples`: whether it was read with its samples. `figures`: whether to compare the figures of latency with each
    other; not where all are recomputed.
    """
    if result.schema != SCHEMA:
        return f"it has schema {result.schema}, but this version of mbbench reads {SCHEMA}"
    if (family := result.cell.model.family) not in _FAMILIES:
        return f"cell.model.family: unknown: {family!r}"
    measured = result.measured
    if (latency := measured.latency) is not None:
        if samples and latency.n != len(latency.samples_ms):
            return f"measured.latency: n is {latency.n}, but there are {len(latency.samples_ms)} samples"
        if figures and not _in_order(latency):
            return "measured.latency: its figures are not in order"
    for served in measured.served:
        has_arrivals = bool(served.samples_ms) or served.arrivals_per_s is not None
        if samples and has_arrivals and served.queries != len(served.samples_ms):
            return f"measured.served: {served.queries} queries, but {len(served.samples_ms)} samples"
    return None if measured.accuracy is None else _accuracy_fault(measured.accuracy)


def _in_order(latency: Latency) -> bool:
    p90_ms, p99_ms, interval = latency.p90_ms, latency.p99_ms, latency.median_ci95_ms
    return (
        latency.min_ms <= latency.median_ms <= (p90_ms or inf)
        and (p90_ms or 0) <= (p99_ms or inf)
        and (interval is None or 0 < interval.low <= interval.high)
    )


def _accuracy_fault(accuracy: Accuracy) -> str | None:
    drop, images = accuracy.drop, accuracy.images
    if drop is not None and drop.only_reference_right + drop.only_this_right > images:
        return f"measured.accuracy.drop: more answers than the {images} images"
    if accuracy.wrong is not None and len(accuracy.wrong) > images:
        return f"measured.accuracy.wrong: more answers than the {images} images"
    return None
