"""The time of each layer of a MobileNetV1, and so of any of its networks, learned from the layers of a few.

A layer takes a constant, plus its Mult-Adds over a ceiling, plus the elements that it moves over a ceiling; each kind
of layer has its own ceilings. Runtimes compute whole vectors, so channels count as the next multiple of the vector's
lanes. How far a layer is from that depends on its shape, smoothly: a Gaussian process over the logarithms of its
channels and its side corrects it. Networks of other widths and resolutions have many layers of about the same shapes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from mbbench.models.cost import Layer, cost_of
from mbbench.spec import ModelSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_KINDS = _STEM, _DEPTHWISE, _POINTWISE, _CLASSIFIER = "Conv 3x3", "Conv DW 3x3", "Conv 1x1", "Fully connected"
_LANES = (1, 4, 8, 16, 32)  # of float32 and int8 in vectors of 128 to 512 bits
_DEVIATION = 0.2  # of a layer from its ceilings, as a share
_LENGTHS = (1.0, 1.0, 0.7)  # over which deviations fade, in ln(inputs), ln(outputs) and ln(side)
_MOST_OFFSET = 0.9  # of the smallest latency
_LAYER_ERROR = 0.1  # relative standard error of the time of a layer: profilers are coarse


@dataclass(frozen=True, slots=True)
class Timing:
    """A measured network: median latency, its relative standard error, and the times of its layers, if known."""

    model: ModelSpec
    median_ms: float
    error: float = 0.0
    layer_ms: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Rows:
    """The layers of a network: kinds (indices), shapes (n, 3) in logarithms, and columns (n, 4) of the law."""

    kinds: NDArray[np.int64]
    shapes: Array
    columns: Array


class Law:
    """The times of layers, from `timings` of one backend, precision and machine.

    `coefficients_ms`, (kinds, 4): time for a padded Mult-Add, an element moved, a weight and a layer, by kind, from
    non-negative least squares of relative errors. `offset_ms`: what a call takes beyond its layers, of runtimes that
    report them; the times of layers are scaled to add up to the rest of their network's latency.
    """

    def __init__(self, timings: Sequence[Timing]) -> None:
        self.offset_ms = _offset_ms(timings)
        timings = [_scaled(timing, self.offset_ms) for timing in timings]
        fits = [(*_fit(timings, lanes), lanes) for lanes in _LANES]
        self.coefficients_ms, _, self.lanes = min(fits, key=lambda entry: entry[1])
        self._corrections = [self._correction(timings, kind) for kind in range(len(_KINDS))]

    def latencies_ms(self, models: Sequence[ModelSpec]) -> Array:
        """Return the latencies of the networks, (n,)."""
        tables = [_rows(model, self.lanes) for model in models]
        kinds = np.concatenate([table.kinds for table in tables])
        times = self._ceiling_ms(kinds, np.concatenate([table.columns for table in tables]))
        shapes = np.concatenate([table.shapes for table in tables])
        for kind, process in enumerate(self._corrections):
            if process is not None:
                of_kind = kinds == kind
                distinct, inverse = np.unique(shapes[of_kind], axis=0, return_inverse=True)
                times[of_kind] *= np.exp(process.predict(distinct))[inverse.ravel()]
        ends = np.cumsum([len(table.kinds) for table in tables])
        return self.offset_ms + np.add.reduceat(times, np.concatenate([[0], ends[:-1]]))

    def _ceiling_ms(self, kinds: NDArray[np.int64], columns: Array) -> Array:
        """Return the times by the ceilings alone, positive."""
        times: Array = (self.coefficients_ms[kinds] * columns).sum(axis=1)
        return np.maximum(times, 1e-9)

    def _correction(self, timings: Sequence[Timing], kind: int) -> Any:
        """Return the process of the logarithms of measured times over those of the ceilings; None without any."""
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import RBF, ConstantKernel

        shapes, logs = [], []
        for timing in timings:
            table = _rows(timing.model, self.lanes)
            times = _times_ms(timing)
            chosen = (table.kinds == kind) & (times > 0)
            if chosen.any():
                shapes.append(table.shapes[chosen])
                logs.append(np.log(times[chosen] / self._ceiling_ms(table.kinds, table.columns)[chosen]))
        if not shapes:
            return None
        kernel = ConstantKernel(_DEVIATION**2, "fixed") * RBF(_LENGTHS, "fixed")
        process = GaussianProcessRegressor(kernel, alpha=_LAYER_ERROR**2, optimizer=None)
        return process.fit(np.concatenate(shapes), np.concatenate(logs))


def relative_fit(rows: Any, values: Any) -> tuple[Array, float]:
    """Return the non-negative coefficients of the least relative errors, and the sum of their squares.

    `rows`: (n, m); `values`: (n,), positive.
    """
    from scipy.optimize import nnls

    matrix = np.asarray(rows, float) / np.asarray(values, float)[:, None]
    norms = np.maximum(np.linalg.norm(matrix, axis=0), np.finfo(float).tiny)
    solution, residual = nnls(matrix / norms, np.ones(len(matrix)))
    return solution / norms, float(residual) ** 2


def _fit(timings: Sequence[Timing], lanes: int) -> tuple[Array, float]:
    """Return the coefficients for vectors of `lanes`, (kinds, 4), and the mean square of relative errors."""
    if all(timing.layer_ms for timing in timings):
        return _fit_layers(timings, lanes)
    return _fit_networks(timings, lanes)


def _fit_layers(timings: Sequence[Timing], lanes: int) -> tuple[Array, float]:
    """Fit each kind of layer on its own."""
    tables = [_rows(timing.model, lanes) for timing in timings]
    kinds = np.concatenate([table.kinds for table in tables])
    columns = np.concatenate([table.columns for table in tables])
    times_ms = np.concatenate([_times_ms(timing) for timing in timings])
    coefficients = np.zeros((len(_KINDS), 4))
    error = 0.0
    for kind in range(len(_KINDS)):
        chosen = (kinds == kind) & (times_ms > 0)
        if chosen.any():
            coefficients[kind], squares = relative_fit(columns[chosen], times_ms[chosen])
            error += squares
    return coefficients, error / np.count_nonzero(times_ms)


def _fit_networks(timings: Sequence[Timing], lanes: int) -> tuple[Array, float]:
    """Fit whole latencies: kinds share all ceilings but that on Mult-Adds, which matrix products have to themselves."""
    rows = []
    for timing in timings:
        table = _rows(timing.model, lanes)
        products = np.isin(table.kinds, (_KINDS.index(_POINTWISE), _KINDS.index(_CLASSIFIER)))
        mult_adds = table.columns[:, 0]
        rows.append([mult_adds[~products].sum(), mult_adds[products].sum(), *table.columns[:, 1:].sum(axis=0)])
    (others, products_ms, *rest), error = relative_fit(rows, [timing.median_ms for timing in timings])
    coefficients = [[products_ms if kind in (_POINTWISE, _CLASSIFIER) else others, *rest] for kind in _KINDS]
    return np.array(coefficients), error / len(timings)


def _offset_ms(timings: Sequence[Timing]) -> float:
    """Return the constant part of the latencies over the sums of layer times; 0 if a runtime does not report these."""
    sums = [sum(timing.layer_ms.values()) for timing in timings]
    if not all(sums):
        return 0.0
    latencies_ms = [timing.median_ms for timing in timings]
    (_, offset_ms), _ = relative_fit([(total, 1.0) for total in sums], latencies_ms)
    return min(float(offset_ms), _MOST_OFFSET * min(latencies_ms))


def _scaled(timing: Timing, offset_ms: float) -> Timing:
    """Return the timing with layer times that add up to its latency without the offset: profiled calls differ."""
    total = sum(timing.layer_ms.values())
    if not total:
        return timing
    factor = (timing.median_ms - offset_ms) / total
    return replace(timing, layer_ms={name: time_ms * factor for name, time_ms in timing.layer_ms.items()})


def _times_ms(timing: Timing) -> Array:
    """Return the times of the layers, (n,); 0 for a layer that was not reported."""
    return np.array([timing.layer_ms.get(layer.name, 0.0) for layer in cost_of(timing.model).layers])


@lru_cache(maxsize=65536)
def _rows(model: ModelSpec, lanes: int) -> _Rows:
    table = cost_of(model).layers
    return _Rows(
        np.array([_KINDS.index(layer.type) for layer in table]),
        np.log([_shape(layer) for layer in table]),
        np.array([_columns(layer, lanes) for layer in table]),
    )


def _shape(layer: Layer) -> tuple[int, int, int]:
    """Return the numbers of inputs of an output, of outputs, and the side."""
    channels = layer.output_shape[0]
    return layer.weights // channels, channels, layer.output_shape[-1] if len(layer.output_shape) > 1 else 1


def _columns(layer: Layer, lanes: int) -> tuple[float, float, float, float]:
    """Return Mult-Adds, elements of input and output, and weights, all with padded channels, and 1."""
    taps, channels, side = _shape(layer)
    padded = math.ceil(channels / lanes) * lanes
    if layer.type in (_POINTWISE, _CLASSIFIER):
        inputs = math.ceil(taps / lanes) * lanes
        return inputs * padded * side**2, (inputs + padded) * side**2, inputs * padded, 1.0
    growth = padded / channels
    moved = layer.inputs * (growth if layer.type == _DEPTHWISE else 1) + padded * side**2
    return layer.mult_adds * growth, moved, layer.weights * growth, 1.0
