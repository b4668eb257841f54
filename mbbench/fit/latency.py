"""The latency of any MobileNetV1 on one chip, predicted with an interval from the few that were measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mbbench.fit.law import Law, Timing
from mbbench.spec import ModelSpec
from mbbench.stats import Interval

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

Z95 = 1.96
_REPEAT_ERROR = 0.01  # relative standard error of a median from one process to the next, beyond its own interval
_LEAST_DEVIATION = 0.02  # of a network from the law, as a share: what few networks show may be too little
_DEVIATION_OF_TWO = 0.2  # of a network from the law of one or two others, which no third one checks
_LENGTHS = (0.5, 0.35)  # over which deviations fade, in ln(alpha) and ln(resolution)


@dataclass(frozen=True, slots=True)
class Prediction:
    """Median latency of an unmeasured network: the most probable, and the standard deviation of its logarithm."""

    median_ms: float
    deviation: float

    @property
    def ci95_ms(self) -> Interval:
        return interval(self.median_ms, self.deviation)


class Predictor:
    """Latencies of networks that were not measured, from `timings` of one backend, precision and machine.

    A Gaussian process over the logarithms of alpha and resolution corrects the law of the layers by what the measured
    networks deviate from it. Its standard deviation far from them is that of each network from the law of the others.
    """

    def __init__(self, timings: Sequence[Timing]) -> None:
        import numpy as np
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import RBF, ConstantKernel

        self.law = Law(timings)
        self.deviation = max(_left_out_deviation(timings) * _few(len(timings)), _LEAST_DEVIATION)
        self._noise = np.array([math.hypot(timing.error, _REPEAT_ERROR) for timing in timings])
        kernel = ConstantKernel(self.deviation**2, "fixed") * RBF(_LENGTHS, "fixed")
        self._process = GaussianProcessRegressor(kernel, alpha=self._noise**2, optimizer=None)
        models = [timing.model for timing in timings]
        latencies_ms = np.array([timing.median_ms for timing in timings])
        self._process.fit(_places(models), np.log(latencies_ms / self.law.latencies_ms(models)))

    def predict(self, models: Sequence[ModelSpec]) -> list[Prediction]:
        """Return the prediction of each network."""
        logs, deviations = self._process.predict(_places(models), return_std=True)
        medians_ms = self.law.latencies_ms(models)
        return [
            Prediction(float(median_ms) * math.exp(log), float(deviation))
            for median_ms, log, deviation in zip(medians_ms, logs, deviations, strict=True)
        ]

    def covariance(self, models: Sequence[ModelSpec]) -> Array:
        """Return the covariance of the logarithms of the networks' latencies."""
        _, covariance = self._process.predict(_places(models), return_cov=True)
        return covariance  # type: ignore[no-any-return]

    @property
    def repeat_variance(self) -> float:
        """The variance of the logarithm of a measured median."""
        return float(self._noise.mean()) ** 2


def _few(count: int) -> float:
    """Return by how much a deviation estimated from `count` values widens a 95 % interval (Student's t)."""
    from scipy.special import stdtrit

    return float(stdtrit(max(count - 1, 1), 0.975)) / Z95


def interval(value: float, deviation: float) -> Interval:
    """Return the 95 % interval of a value whose logarithm has this standard deviation."""
    return Interval(value * math.exp(-Z95 * deviation), value * math.exp(Z95 * deviation))


def _left_out_deviation(timings: Sequence[Timing]) -> float:
    """Return the root mean square of the logarithmic errors for each network, by the law of all others."""
    if len(timings) < 3:
        return _DEVIATION_OF_TWO
    squares = []
    for index, timing in enumerate(timings):
        law = Law([*timings[:index], *timings[index + 1 :]])
        squares.append(math.log(timing.median_ms / law.latencies_ms([timing.model])[0]) ** 2)
    return math.sqrt(sum(squares) / len(squares))


def _places(models: Sequence[ModelSpec]) -> list[tuple[float, float]]:
    return [(math.log(model.alpha), math.log(model.resolution)) for model in models]
