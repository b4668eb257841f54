"""The law of the layers, on a made-up chip that follows it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mbbench.fit.law import Law, Timing, relative_fit
from mbbench.fit.spread import spread
from mbbench.spec import ModelSpec

MakeChip = Callable[..., Any]


def timings(chip: Any, models: list[ModelSpec]) -> list[Timing]:
    return [chip.measure(model).timing for model in models]


@pytest.mark.parametrize("lanes", [8, 16, 32])
def test_five_networks_give_away_the_whole_law(chip: MakeChip, fine: list[ModelSpec], lanes: int) -> None:
    truth = chip(lanes=lanes)
    law = Law(timings(truth, spread(fine, 5)))
    assert law.lanes == lanes
    assert law.latencies_ms(fine) == pytest.approx([truth.latency_ms(model) for model in fine], rel=1e-6)
    # A millisecond for 120 million Mult-Adds of a pointwise layer, and 1 µs for the layer.
    assert law.coefficients_ms[2, 0] == pytest.approx(1 / 1.2e8)
    assert law.coefficients_ms[2, 3] == pytest.approx(0.001)


def test_layers_that_deviate_smoothly_are_learned_by_their_shapes(chip: MakeChip, coarse: list[ModelSpec]) -> None:
    truth = chip(bend=0.2)
    law = Law(timings(truth, spread(coarse, 6)))
    assert law.latencies_ms(coarse) == pytest.approx([truth.latency_ms(model) for model in coarse], rel=0.02)


def test_whole_latencies_alone_are_enough_for_a_rough_law(chip: MakeChip, coarse: list[ModelSpec]) -> None:
    truth = chip(reports_layers=False)
    law = Law(timings(truth, spread(coarse, 8)))
    assert law.latencies_ms(coarse) == pytest.approx([truth.latency_ms(model) for model in coarse], rel=0.1)


def test_times_of_layers_count_by_their_shares_of_the_latency(chip: MakeChip, coarse: list[ModelSpec]) -> None:
    """A profiler that makes every layer take 1.5 times as long changes nothing."""
    models = spread(coarse, 5)
    slowed = [
        Timing(t.model, t.median_ms, t.error, {name: 1.5 * ms for name, ms in t.layer_ms.items()})
        for t in timings(chip(), models)
    ]
    assert Law(slowed).latencies_ms(coarse) == pytest.approx(Law(timings(chip(), models)).latencies_ms(coarse))


def test_what_a_call_takes_beyond_its_layers_is_an_offset(chip: MakeChip, coarse: list[ModelSpec]) -> None:
    models = spread(coarse, 5)
    later = [Timing(t.model, t.median_ms + 0.08, t.error, t.layer_ms) for t in timings(chip(), models)]
    law = Law(later)
    assert law.offset_ms == pytest.approx(0.08)
    assert law.latencies_ms(coarse) == pytest.approx([chip().latency_ms(model) + 0.08 for model in coarse])


def test_coefficients_are_never_negative_and_minimize_relative_errors() -> None:
    coefficients, error = relative_fit([[1.0, 0.0], [100.0, 1.0]], [2.0, 100.0])
    # Without the sign, the second coefficient would be -100. For the first, 1/2 and 1 are 2.5 : 1.25 in the optimum.
    assert coefficients == pytest.approx([1.2, 0.0])
    assert error == pytest.approx((1.2 / 2 - 1) ** 2 + (1.2 - 1) ** 2)
    assert np.all(coefficients >= 0)
