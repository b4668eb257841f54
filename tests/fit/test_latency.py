"""Predicted latencies and their intervals."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from mbbench.fit.latency import Predictor, interval
from mbbench.fit.law import Law, Timing
from mbbench.fit.spread import spread
from mbbench.spec import ModelSpec
from mbbench.stats import Interval

MakeChip = Callable[..., Any]


def test_a_chip_that_follows_the_law_is_predicted_exactly(chip: MakeChip, fine: list[ModelSpec]) -> None:
    truth = chip()
    predictor = Predictor([truth.measure(model).timing for model in spread(fine, 5)])
    assert [p.median_ms for p in predictor.predict(fine)] == pytest.approx(
        [truth.latency_ms(model) for model in fine], rel=1e-6
    )


def test_the_intervals_hold_nearly_all_latencies_of_a_noisy_chip(chip: MakeChip, fine: list[ModelSpec]) -> None:
    truth = chip(noise=0.02, bend=0.2)
    predictor = Predictor([truth.measure(model).timing for model in spread(fine, 8)])
    inside = [
        p.ci95_ms.low <= truth.latency_ms(model) <= p.ci95_ms.high
        for model, p in zip(fine, predictor.predict(fine), strict=True)
    ]
    assert sum(inside) / len(inside) > 0.9


def test_measured_networks_are_known_best_and_pull_their_neighbors(chip: MakeChip, coarse: list[ModelSpec]) -> None:
    """One network is 30 % slower than the law: so is its neighbor, in part, but not one far away."""
    truth = chip(reports_layers=False)
    slow, near, far = (
        ModelSpec(alpha=alpha, resolution=side, classes=10) for alpha, side in ((0.5, 160), (0.5, 176), (0.125, 224))
    )
    timings = [truth.measure(model).timing for model in spread(coarse, 9) if model != slow]
    slow_ms = 1.3 * truth.latency_ms(slow)
    predictor = Predictor([*timings, Timing(slow, slow_ms)])
    predictions = predictor.predict([slow, near, far])
    assert predictions[0].median_ms == pytest.approx(slow_ms, rel=0.01)
    excess = [
        prediction.median_ms / law_ms - 1
        for prediction, law_ms in zip(predictions, predictor.law.latencies_ms([slow, near, far]), strict=True)
    ]
    assert excess[0] > 0.15 and excess[0] > excess[1] > excess[0] / 2 and abs(excess[2]) < 0.02
    assert predictions[0].deviation < predictions[1].deviation < predictor.deviation


def test_far_from_all_measured_networks_the_deviation_is_that_of_networks_left_out(
    chip: MakeChip, coarse: list[ModelSpec]
) -> None:
    timings = [chip(noise=0.1, reports_layers=False).measure(model).timing for model in spread(coarse, 6)]
    logs = [
        math.log(timing.median_ms / Law([t for t in timings if t is not timing]).latencies_ms([timing.model])[0])
        for timing in timings
    ]
    few = 2.5706 / 1.96  # Student's t of 5 degrees of freedom over that of many
    predictor = Predictor(timings)
    assert predictor.deviation == pytest.approx(few * math.sqrt(sum(log**2 for log in logs) / 6), rel=1e-4)
    (far,) = predictor.predict([ModelSpec(alpha=8.0, resolution=2048, classes=10)])
    assert far.deviation == pytest.approx(predictor.deviation)


def test_the_interval_is_symmetric_in_the_logarithm() -> None:
    assert interval(2.0, 0.0) == Interval(2.0, 2.0)
    wide = interval(2.0, 0.1)
    assert wide.low * wide.high == pytest.approx(4.0)
    assert math.log(wide.high / 2) == pytest.approx(0.196)


def test_the_law_of_two_networks_is_not_trusted(chip: MakeChip, fine: list[ModelSpec]) -> None:
    row = [model for model in fine if model.resolution == 224]
    two = Predictor([chip().measure(model).timing for model in (row[0], row[-1])])
    assert two.deviation > 0.2 > Predictor([chip().measure(model).timing for model in spread(row, 4)]).deviation
