"""Latency, size, memory and top-1 of every network of a grid, from the measurements of a few."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist, median
from typing import TYPE_CHECKING

from mbbench.analysis.choose import Limits
from mbbench.errors import UsageError
from mbbench.fit import accuracy
from mbbench.fit.accuracy import Top1
from mbbench.fit.latency import Predictor, interval
from mbbench.fit.law import relative_fit
from mbbench.fit.measurement import Measurement, place_of
from mbbench.models.cost import cost_of
from mbbench.spec import ModelSpec, Precision
from mbbench.stats import Interval

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MAD_OF_NORMAL = 0.6745  # median absolute deviation over standard deviation


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """The figures of a network; `measurement` is None if all are predicted.

    `p99_ci95_ms` is None for a measured p99. `deviation` is the standard deviation of the logarithm of a predicted p99,
    0 if it is measured. `fits`: the probability that it is within the limits of latency, size and memory.
    """

    model: ModelSpec
    measurement: Measurement | None = None
    mult_adds: int
    median_ms: float
    p99_ms: float | None
    p99_ci95_ms: Interval | None
    deviation: float
    size_bytes: float | None
    rss_bytes: float | None
    added_rss_bytes: float | None
    top1: Top1 | None
    fits: float = 0.0

    @property
    def is_measured(self) -> bool:
        return self.measurement is not None


@dataclass(frozen=True, slots=True)
class Estimates:
    """The estimates of a grid's networks, in its order, and how they depend on each other.

    `p99_ratio`: p99 over median, the median of the measured networks. `covariance`: of the logarithms of the
    medians. `repeat_variance`: of the logarithm of a measured median.
    """

    cells: tuple[Estimate, ...]
    p99_ratio: float | None
    covariance: NDArray[np.float64]
    repeat_variance: float


def estimate(
    models: Sequence[ModelSpec], known: Sequence[Measurement], limits: Limits, precision: Precision
) -> Estimates:
    """Return the estimates of `models` from the measurements `known`, all of one backend, precision and machine.

    A predicted p99 is the predicted median times the measured networks' ratio of p99 to median. Raises `UsageError` if
    p99 is limited and none was measured.
    """
    known = sorted(known, key=lambda entry: place_of(entry.model))  # the same figures whatever was measured first
    measured = {place_of(entry.model): entry for entry in known}
    models = [replace(model, classes=known[0].model.classes) for model in models]
    predictor = Predictor([measurement.timing for measurement in known])
    ratio, ratio_error = _p99_ratio(known)
    if ratio is None and limits.max_p99_ms is not None:
        raise UsageError("no p99 was measured: the calls are too few", "give a profile with a longer max_s")
    sizes = _linear(models, known, "size_bytes")
    rss = _linear(models, known, "rss_bytes")
    added = _linear(models, known, "added_rss_bytes")
    top1 = _top1(models, known, precision)
    cells = []
    for index, (model, prediction) in enumerate(zip(models, predictor.predict(models), strict=True)):
        deviation = math.hypot(prediction.deviation, ratio_error)
        p99_ms = None if ratio is None else prediction.median_ms * ratio
        cell = Estimate(
            model=model,
            mult_adds=sum(layer.mult_adds for layer in cost_of(model).layers),
            median_ms=prediction.median_ms,
            p99_ms=p99_ms,
            p99_ci95_ms=None if p99_ms is None else interval(p99_ms, deviation),
            deviation=deviation,
            size_bytes=sizes[index],
            rss_bytes=rss[index],
            added_rss_bytes=added[index],
            top1=top1[index],
        )
        measurement = measured.get(place_of(model))
        if measurement is not None:
            cell = _with_measurement(cell, measurement, ratio, ratio_error)
        cells.append(replace(cell, fits=_probability(cell, limits)))
    return Estimates(tuple(cells), ratio, predictor.covariance(models), predictor.repeat_variance)


def _with_measurement(cell: Estimate, measurement: Measurement, ratio: float | None, ratio_error: float) -> Estimate:
    """Return the cell with measured figures; one that was not measured stays predicted, p99 from the median."""
    p99_ms, ci95_ms, deviation = measurement.p99_ms, None, 0.0
    if p99_ms is None and ratio is not None:
        p99_ms, deviation = measurement.timing.median_ms * ratio, ratio_error
        ci95_ms = interval(p99_ms, deviation)
    return replace(
        cell,
        measurement=measurement,
        median_ms=measurement.timing.median_ms,
        p99_ms=p99_ms,
        p99_ci95_ms=ci95_ms,
        deviation=deviation,
        size_bytes=measurement.size_bytes or cell.size_bytes,
        rss_bytes=measurement.rss_bytes or cell.rss_bytes,
        added_rss_bytes=measurement.added_rss_bytes or cell.added_rss_bytes,
    )


def _p99_ratio(known: Sequence[Measurement]) -> tuple[float | None, float]:
    """Return the typical p99 over median, and the standard error of its logarithm.

    It is the median of the networks, with the error of a median of normal values by their median absolute deviation: a
    disturbance during one network multiplies its p99, and would move a mean.
    """
    logs = [math.log(entry.p99_ms / entry.timing.median_ms) for entry in known if entry.p99_ms is not None]
    if not logs:
        return None, 0.0
    typical = median(logs)
    spread = median(abs(log - typical) for log in logs) / _MAD_OF_NORMAL
    return math.exp(typical), math.sqrt(math.pi / 2 / len(logs)) * spread


def _linear(models: Sequence[ModelSpec], known: Sequence[Measurement], name: str) -> Sequence[float | None]:
    """Return a figure that grows with the weights, the channels and the largest activation; None if it is unknown."""
    import numpy as np

    values = {entry.model: value for entry in known if (value := getattr(entry, name))}
    if not values:
        return [None] * len(models)
    coefficients, _ = relative_fit([_sizes(model) for model in values], list(values.values()))
    return [float(np.dot(_sizes(model), coefficients)) for model in models]


def _sizes(model: ModelSpec) -> tuple[float, float, float, float]:
    """Return the number of weights and of channels, the largest input with its output, and 1."""
    table = cost_of(model).layers
    return (
        float(sum(layer.weights for layer in table)),
        float(sum(layer.output_shape[0] for layer in table)),
        float(max(layer.inputs + math.prod(layer.output_shape) for layer in table)),
        1.0,
    )


def _top1(models: Sequence[ModelSpec], known: Sequence[Measurement], precision: Precision) -> list[Top1 | None]:
    """Return the measured top-1 where any was measured, else the published one."""
    measured = {place_of(entry.model): entry.top1 for entry in known if entry.top1 is not None}
    if measured:
        return accuracy.measured(models, {m: measured[place_of(m)] for m in models if place_of(m) in measured})
    return accuracy.published(models, precision)


def _probability(cell: Estimate, limits: Limits) -> float:
    """Return the probability that the cell is within the limits of size, memory and p99; top-1 is not a cost."""
    for value, limit in (
        (cell.size_bytes, limits.max_size_bytes),
        (cell.rss_bytes, limits.max_rss_bytes),
        (cell.added_rss_bytes, limits.max_added_rss_bytes),
    ):
        if limit is not None and (value is None or value > limit):
            return 0.0
    if limits.max_p99_ms is None or cell.p99_ms is None:
        return 1.0
    if cell.deviation == 0:
        return float(cell.p99_ms <= limits.max_p99_ms)
    return NormalDist().cdf(math.log(limits.max_p99_ms / cell.p99_ms) / cell.deviation)
