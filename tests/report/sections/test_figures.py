from collections.abc import Callable
from dataclasses import replace

import pytest

from mbbench.measure.latency import latency_figures
from mbbench.report.names import namer
from mbbench.report.sections import figures
from mbbench.result import Result, WarmUp

Make = Callable[..., Result]


@pytest.mark.parametrize(("count", "whiskers"), [(700, "p1 and p99"), (100, "p10 and p90"), (20, "the extremes")])
def test_whiskers_are_at_percentiles_that_the_samples_can_show(make_result: Make, count: int, whiskers: str) -> None:
    samples_ns = [1_000_000 + 1_000 * index for index in range(count)]
    latency, _ = latency_figures(samples_ns, batch=1, warmed=WarmUp(runs=30, seconds=0.1, steady=True))
    result = make_result()
    result = replace(result, measured=replace(result.measured, latency=latency))
    figure = figures.distributions("plot", [result], namer([result]))
    assert (
        figure.title
        == f"Spread of latency: quartiles (box), {whiskers} (whiskers), 95 % interval of the median (notch)"
    )
    assert figure.alt.endswith(f"with whiskers at {whiskers}.")
    (box,) = figure.traces
    if whiskers == "the extremes":
        assert box["upperfence"][0] == pytest.approx((max(samples_ns) / 1e6 / latency.median_ms - 1) * 100)
