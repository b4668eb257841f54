"""Fixtures: the results of a small study."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from mbbench.measure import scenarios
from mbbench.measure.latency import latency_figures
from mbbench.models.cost import cost_of
from mbbench.result import (
    Ceilings,
    ExecutedInfo,
    Failure,
    LayerTime,
    LayerTimes,
    Measured,
    PrecisionShare,
    Result,
    ScenarioResult,
    Top1Drop,
    WarmUp,
)
from mbbench.spec import ModelSpec, Precision
from mbbench.stats import mcnemar, paired_interval, wilson_interval

Make = Callable[..., Result]
_IMAGES = 359
_MULT_ADDS_PER_MS = {"fp32": 40e6, "int8": 100e6}


@pytest.fixture(scope="session")
def study(make_result: Make) -> list[Result]:
    """Two widths, resolutions and precisions on OpenVINO, the baselines, and a failed cell."""
    cells = [
        _cell(make_result, ModelSpec(alpha=alpha, resolution=size, classes=10), precision, correct)
        for alpha, size, correct in ((0.25, 128, 330), (0.25, 224, 336), (1.0, 128, 345), (1.0, 224, 350))
        for precision in ("fp32", "int8")
    ]
    baselines = [
        _cell(make_result, ModelSpec(family=family, resolution=224, classes=10), "fp32", None)
        for family in ("vgg16", "googlenet")
    ]
    failure = Failure(cause="the measuring process was killed", remedy="free memory", exit_code=7)
    cells[0] = _with_scenarios(cells[0])
    failed = replace(make_result(ModelSpec(alpha=0.5, classes=10)), failure=failure, measured=Measured(), reasons={})
    return [*cells, *baselines, failed]


def _with_scenarios(result: Result) -> Result:
    """Return `result` with two scenarios that were measured and one that was not."""
    samples_ns = [round((0.6 + 0.001 * (i % 100) + 20 * (i == 700)) * 1e6) for i in range(1000)]
    server = replace(
        scenarios.scenario_figures("server", samples_ns, batch=1, seconds=2.0, bound_ms=15.0),
        arrivals_per_s=500.0,
        effective={"streams": "2"},
    )
    offline = ScenarioResult(
        scenario="offline", batch=4, queries=1500, seconds=3.0, images_per_s=2000.0, effective={"streams": "2"}
    )
    return replace(
        result,
        settings=replace(result.settings, scenarios=("multi-stream", "offline", "server")),
        measured=replace(result.measured, served=(offline, server)),
        reasons={**result.reasons, "served.multi-stream": "no memory; free some"},
    )


def _cell(make: Make, model: ModelSpec, precision: Precision, correct: int | None) -> Result:
    """Return a result whose latency follows from its Mult-Adds; without `correct` answers it is a baseline."""
    result = make(model, "subject" if correct is not None else "baseline")
    cost = cost_of(model)
    median_ms = 0.2 + cost.mult_adds / _MULT_ADDS_PER_MS[precision]
    samples_ns = [round(median_ms * (1 + 0.001 * (i % 10) + 0.1 * (i % 100 == 99)) * 1e6) for i in range(700)]
    latency, _ = latency_figures(samples_ns, batch=1, warmed=WarmUp(runs=30, seconds=0.02, steady=True))
    accuracy, artifact = result.measured.accuracy, result.artifact
    assert accuracy is not None and artifact is not None
    if correct is not None:
        lost = 4 if precision == "int8" else 0
        drop = Top1Drop(
            share=lost / _IMAGES, ci95=paired_interval(lost, 0, _IMAGES), only_reference_right=lost, only_this_right=0,
            p_value=mcnemar(lost, 0), worst_class=3, worst_class_share=lost / 36,
        )  # fmt: skip
        accuracy = replace(
            accuracy, top1=(correct - lost) / _IMAGES, top1_ci95=wilson_interval(correct - lost, _IMAGES), drop=drop
        )
    share = PrecisionShare(precision=precision, mult_adds_share=1.0, layers=len(cost.layers))
    layers = tuple(
        LayerTime(
            name=layer.name, type=layer.type, precision=precision, mult_adds=layer.mult_adds,
            median_ms=layer.mult_adds / _MULT_ADDS_PER_MS[precision] * (4 if "DW" in layer.type else 1),
            moved_bytes=4 * (layer.weights + 2 * math.prod(layer.output_shape)),
        )
        for layer in cost.layers
    )  # fmt: skip
    return replace(
        result,
        cell=replace(result.cell, precision=precision),
        cost=cost.info,
        artifact=replace(artifact, size_bytes=cost.parameters * (1 if precision == "int8" else 4)),
        executed=ExecutedInfo(shares=(share,), fp32_layers=(), moves=2),
        layer_times=LayerTimes(runs=20, layers=layers, moves_ms=0.01, other_ms=0.05),
        ceilings=Ceilings(
            threads=1, mult_adds_per_s={"fp32": 60e9, "int8": 150e9}, memory_bytes_per_s=12e9, cache_bytes_per_s=60e9
        ),
        measured=replace(result.measured, latency=latency, accuracy=accuracy),
    )
