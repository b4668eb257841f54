"""Latency, size, memory and top-1 of every network of a grid, from the results of a few."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist, fmean, stdev
from typing import TYPE_CHECKING

from mbbench.analysis.choose import Limits
from mbbench.errors import UsageError
from mbbench.fit import accuracy
from mbbench.fit.accuracy import Top1
from mbbench.fit.latency import Predictor, Timing, relative_fit
from mbbench.fit.layers import layers
from mbbench.result import Result
from mbbench.spec import ModelSpec
from mbbench.stats import Interval

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_Z95 = 1.96
Place = tuple[float, int]  # alpha and resolution


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """The figures of a network; `result` is None if all are predicted.

    `p99_ci95_ms` is None for a measured p99. `deviation` is the standard deviation of the logarithm of a predicted p99,
    0 if it is measured. `fits`: the probability that it is within the limits of latency, size and memory.
    """

    model: ModelSpec
    result: Result | None
    mult_adds: int
    median_ms: float
    p99_ms: float | None
    p99_ci95_ms: Interval | None
    deviation: float
    size_bytes: float
    rss_bytes: float | None
    added_rss_bytes: float | None
    top1: Top1 | None
    fits: float

    @property
    def is_measured(self) -> bool:
        return self.result is not None


@dataclass(frozen=True, slots=True)
class Estimates:
    """The estimates of a grid's networks, in its order, and how they depend on each other.

    `p99_ratio`: p99 over median, the geometric mean of the measured networks. `covariance`: of the logarithms of the
    medians. `repeat_variance`: of the logarithm of a measured median.
    """

    cells: tuple[Estimate, ...]
    p99_ratio: float | None
    covariance: NDArray[np.float64]
    repeat_variance: float


def place(model: ModelSpec) -> Place:
    return model.alpha, model.resolution


def estimate(models: Sequence[ModelSpec], results: Sequence[Result], limits: Limits) -> Estimates:
    """Return the estimates of `models` from `results`, of one backend, precision and machine, none of which failed.

    A predicted p99 is the predicted median times the measured networks' ratio of p99 to median. Raises `UsageError` if
    p99 is limited and none was measured.
    """
    measured = {place(result.cell.model): result for result in results}
    models = [replace(model, classes=results[0].cell.model.classes) for model in models]
    predictor = Predictor([_timing(result) for result in results])
    ratio, ratio_error = _p99_ratio(results)
    if ratio is None and limits.max_p99_ms is not None:
        raise UsageError("no p99 was measured: the calls are too few", "raise min_samples in the profile to 662")
    sizes = _linear(models, results, [result.size_bytes() for result in results])
    rss = _linear(models, results, [result.peak_rss_bytes() for result in results])
    added = _linear(models, results, [result.added_rss_bytes() for result in results])
    top1 = _top1(models, results)
    cells = []
    for index, (model, prediction) in enumerate(zip(models, predictor.predict(models), strict=True)):
        deviation = math.hypot(prediction.deviation, ratio_error)
        p99_ms = None if ratio is None else prediction.median_ms * ratio
        cell = Estimate(
            model=model,
            result=None,
            mult_adds=sum(layer.mult_adds for layer in layers(model)),
            median_ms=prediction.median_ms,
            p99_ms=p99_ms,
            p99_ci95_ms=None if p99_ms is None else _interval(p99_ms, deviation),
            deviation=deviation,
            size_bytes=sizes[index] or 0.0,
            rss_bytes=rss[index],
            added_rss_bytes=added[index],
            top1=top1[index],
            fits=0.0,
        )
        result = measured.get(place(model))
        cell = cell if result is None else _measured(cell, result)
        cells.append(replace(cell, fits=_probability(cell, limits)))
    return Estimates(tuple(cells), ratio, predictor.covariance(models), predictor.repeat_variance)


def _timing(result: Result) -> Timing:
    latency = result.measured.latency
    assert latency is not None  # of a result without failure
    interval = latency.median_ci95_ms
    error = 0.0 if interval is None else (interval.high - interval.low) / (2 * _Z95 * latency.median_ms)
    times = () if result.layer_times is None else result.layer_times.layers
    return Timing(result.cell.model, latency.median_ms, error, {time.name: time.median_ms for time in times})


def _measured(cell: Estimate, result: Result) -> Estimate:
    """Return the cell with the result's figures; a figure that was not measured stays predicted."""
    latency = result.measured.latency
    p99_ms = None if latency is None else latency.p99_ms
    if p99_ms is not None:
        cell = replace(cell, p99_ms=p99_ms, p99_ci95_ms=None, deviation=0.0)
    return replace(
        cell,
        result=result,
        median_ms=result.median_ms() or cell.median_ms,
        size_bytes=result.size_bytes() or cell.size_bytes,
        rss_bytes=result.peak_rss_bytes() or cell.rss_bytes,
        added_rss_bytes=result.added_rss_bytes() or cell.added_rss_bytes,
    )


def _p99_ratio(results: Sequence[Result]) -> tuple[float | None, float]:
    """Return the geometric mean of p99 over median, and the standard error of its logarithm."""
    logs = [
        math.log(latency.p99_ms / latency.median_ms)
        for result in results
        if (latency := result.measured.latency) is not None and latency.p99_ms is not None
    ]
    if not logs:
        return None, 0.0
    return math.exp(fmean(logs)), stdev(logs) / math.sqrt(len(logs)) if len(logs) > 1 else 0.0


def _linear(
    models: Sequence[ModelSpec], results: Sequence[Result], values: Sequence[float | None]
) -> Sequence[float | None]:
    """Return a figure that grows with the weights, the channels and the largest activation; None if it is unknown."""
    import numpy as np

    known = [(_sizes(result.cell.model), value) for result, value in zip(results, values, strict=True) if value]
    if not known:
        return [None] * len(models)
    coefficients, _ = relative_fit([sizes for sizes, _ in known], [value for _, value in known])
    return [float(np.dot(_sizes(model), coefficients)) for model in models]


def _sizes(model: ModelSpec) -> tuple[float, float, float, float]:
    """Return the number of weights and of channels, the largest input with its output, and 1."""
    table = layers(model)
    return (
        float(sum(layer.weights for layer in table)),
        float(sum(layer.output_shape[0] for layer in table)),
        float(max(layer.inputs + math.prod(layer.output_shape) for layer in table)),
        1.0,
    )


def _top1(models: Sequence[ModelSpec], results: Sequence[Result]) -> list[Top1 | None]:
    """Return the measured top-1 where any was measured, else the published one."""
    known = {place(result.cell.model): top1 for result in results if (top1 := result.top1()) is not None}
    if known:
        by_model = {model: known[place(model)] for model in models if place(model) in known}
        return accuracy.measured(models, by_model)
    return accuracy.published(models, results[0].cell.precision)


def _interval(value: float, deviation: float) -> Interval:
    return Interval(value * math.exp(-_Z95 * deviation), value * math.exp(_Z95 * deviation))


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
