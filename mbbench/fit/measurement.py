"""The figures of a measured network that predictions of others need."""

from __future__ import annotations

from dataclasses import dataclass

from mbbench.fit.latency import Z95
from mbbench.fit.law import Timing
from mbbench.result import Result
from mbbench.spec import ModelSpec

Place = tuple[float, int]  # alpha and resolution


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """The figures of a network; None: not measured. `top1`: 0 to 1. `id`: of the result."""

    timing: Timing
    p99_ms: float | None
    size_bytes: float | None = None
    rss_bytes: float | None = None
    added_rss_bytes: float | None = None
    top1: float | None = None
    id: str = ""

    @property
    def model(self) -> ModelSpec:
        return self.timing.model


def place_of(model: ModelSpec) -> Place:
    return model.alpha, model.resolution


def measurement_of(result: Result) -> Measurement:
    """Return the figures of a result that did not fail."""
    latency = result.measured.latency
    assert latency is not None  # of a result without failure
    ci95 = latency.median_ci95_ms
    error = 0.0 if ci95 is None else (ci95.high - ci95.low) / (2 * Z95 * latency.median_ms)
    times = () if result.layer_times is None else result.layer_times.layers
    return Measurement(
        timing=Timing(result.cell.model, latency.median_ms, error, {time.name: time.median_ms for time in times}),
        p99_ms=latency.p99_ms,
        size_bytes=result.size_bytes(),
        rss_bytes=result.peak_rss_bytes(),
        added_rss_bytes=result.added_rss_bytes(),
        top1=result.top1(),
        id=result.id,
    )
