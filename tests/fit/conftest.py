"""A made-up chip whose latencies follow a known law."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from mbbench.fit.law import Timing
from mbbench.fit.measurement import Measurement
from mbbench.models.cost import Layer, cost_of
from mbbench.spec import ModelSpec

# Mult-Adds a millisecond.
_CEILINGS = {"Conv 3x3": 6e7, "Conv DW 3x3": 4e7, "Conv 1x1": 1.2e8, "Fully connected": 2e6}
P99_RATIO = 1.25


@dataclass(frozen=True)
class Chip:
    """Channels count as multiples of `lanes`; every layer takes 1 µs more. `noise`: of a latency, as a share."""

    lanes: int = 16
    noise: float = 0.0
    bend: float = 0.0  # how far a layer is from its ceiling, as a share
    reports_layers: bool = True

    def layer_ms(self, layer: Layer) -> float:
        channels = layer.output_shape[0]
        padding = self._padded(channels) / channels
        if layer.type in ("Conv 1x1", "Fully connected"):
            inputs = layer.weights // channels
            padding *= self._padded(inputs) / inputs
        bend = 1 + self.bend * math.sin(2 * math.log(channels))
        return (layer.mult_adds * padding / _CEILINGS[layer.type] + 0.001) * bend

    def _padded(self, channels: int) -> int:
        return math.ceil(channels / self.lanes) * self.lanes

    def latency_ms(self, model: ModelSpec) -> float:
        return sum(self.layer_ms(layer) for layer in cost_of(model).layers)

    def measure(self, model: ModelSpec) -> Measurement:
        """Return a measurement with noise that depends on the network alone."""
        times = {layer.name: self.layer_ms(layer) for layer in cost_of(model).layers} if self.reports_layers else {}
        rng = random.Random(repr((model.alpha, model.resolution)))
        median_ms = self.latency_ms(model) * math.exp(rng.gauss(0, self.noise))
        weights = sum(layer.weights for layer in cost_of(model).layers)
        return Measurement(
            timing=Timing(model, median_ms, self.noise, times),
            p99_ms=median_ms * P99_RATIO,
            size_bytes=4 * weights + 20_000,
            rss_bytes=60e6 + 5 * weights,
            added_rss_bytes=30e6 + 5 * weights,
            id=f"{model.alpha:g}/{model.resolution}",
        )


@pytest.fixture
def chip() -> Callable[..., Chip]:
    """Return the class of the made-up chip."""
    return Chip


def grid(steps: int, sides: range) -> list[ModelSpec]:
    """Return the networks of alpha 1/steps to 1 and these sides."""
    return [ModelSpec(alpha=k / steps, resolution=side, classes=10) for k in range(1, steps + 1) for side in sides]


@pytest.fixture
def coarse() -> list[ModelSpec]:
    """Return 8 by 8 networks."""
    return grid(8, range(112, 225, 16))


@pytest.fixture
def fine() -> list[ModelSpec]:
    """Return 32 by 17 networks in steps of 1/32 and 8 pixels."""
    return grid(32, range(96, 225, 8))
