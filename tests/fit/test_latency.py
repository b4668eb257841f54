"""Predicted latencies and their intervals."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from mbbench.fit.latency import Predictor, interval
from mbbench.fit.law import Timing
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
    """A network that is 10 % slower than its layers makes its neighbor's prediction slower, a far one's hardly."""
    models = spread(coarse, 9)
    timings = [chip(reports_layers=False).measure(model).timing for model in models]
    slow = ModelSpec(alpha=0.5, resolution=160, classes=10)
    near, far = (ModelSpec(alpha=alpha, resolution=side, classes=10) for alpha, side in ((0.5, 176), (0.125, 224)))
    timings = [t for t in timings if t.model != slow]
    latency_ms = chip().latency_ms(slow)
    usual, slower = (Predictor([*timings, Timing(slow, latency_ms * factor)]) for factor in (1.0, 1.1))
    ratios = [
        b.median_ms / a.median_ms
        for a, b in zip(usual.predict([slow, near, far]), slower.predict([slow, near, far]), strict=True)
    ]
    assert ratios[0] > 1.07 and ratios[1] > 1.03 and abs(ratios[2] - 1) < 0.02
    deviations = [p.deviation for p in slower.predict([slow, near, far])]
    assert deviations[0] < deviations[1]


def test_the_interval_is_symmetric_in_the_logarithm() -> None:
    assert interval(2.0, 0.0) == Interval(2.0, 2.0)
    wide = interval(2.0, 0.1)
    assert wide.low * wide.high == pytest.approx(4.0)
    assert math.log(wide.high / 2) == pytest.approx(0.196)
