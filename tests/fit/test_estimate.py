"""The figures of networks that were not measured, and of those that were."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from mbbench.analysis.choose import Limits
from mbbench.fit.estimate import estimate
from mbbench.fit.measurement import Measurement, measurement_of
from mbbench.fit.spread import spread
from mbbench.result import Result
from mbbench.spec import ModelSpec

MakeChip = Callable[..., Any]


@pytest.fixture
def known(chip: MakeChip, coarse: list[ModelSpec]) -> list[Measurement]:
    return [chip().measure(model) for model in spread(coarse, 6)]


def test_predicted_figures_are_those_of_the_chip(
    chip: MakeChip, coarse: list[ModelSpec], known: list[Measurement]
) -> None:
    estimates = estimate(coarse, known, Limits(), "fp32")
    assert estimates.p99_ratio == pytest.approx(1.25)
    assert [cell.model for cell in estimates.cells] == coarse
    for cell in estimates.cells:
        truth = chip().measure(cell.model)
        assert cell.median_ms == pytest.approx(truth.timing.median_ms)
        assert cell.p99_ms == pytest.approx(truth.p99_ms)
        assert cell.size_bytes == pytest.approx(truth.size_bytes, rel=1e-6)
        assert cell.rss_bytes == pytest.approx(truth.rss_bytes, rel=1e-6)
        assert cell.added_rss_bytes == pytest.approx(truth.added_rss_bytes, rel=1e-6)
        assert cell.fits == 1.0
        assert (cell.measurement in known, cell.p99_ci95_ms is None) == (cell.is_measured, cell.is_measured)


def test_a_limit_on_p99_leaves_predicted_cells_uncertain_and_measured_ones_not(
    coarse: list[ModelSpec], known: list[Measurement]
) -> None:
    exact = estimate(coarse, known, Limits(), "fp32").cells
    cell = next(cell for cell in exact if not cell.is_measured)
    assert cell.p99_ms is not None
    at_limit = estimate(coarse, known, Limits(max_p99_ms=cell.p99_ms), "fp32").cells
    for before, after in zip(exact, at_limit, strict=True):
        assert before.p99_ms is not None
        if before.is_measured:
            assert after.fits == float(before.p99_ms <= cell.p99_ms)
        elif before is cell:
            assert after.fits == pytest.approx(0.5)
        else:
            assert (after.fits > 0.5) == (before.p99_ms < cell.p99_ms)


@pytest.mark.parametrize(
    ("limits", "name"),
    [
        (Limits(max_size_bytes=3e6), "size_bytes"),
        (Limits(max_rss_bytes=63e6), "rss_bytes"),
        (Limits(max_added_rss_bytes=33e6), "added_rss_bytes"),
    ],
)
def test_other_limits_decide_without_doubt(
    coarse: list[ModelSpec], known: list[Measurement], limits: Limits, name: str
) -> None:
    limit = getattr(limits, f"max_{name}")
    cells = estimate(coarse, known, limits, "fp32").cells
    assert {cell.fits for cell in cells} == {0.0, 1.0}
    assert all((cell.fits == 1.0) == (getattr(cell, name) <= limit) for cell in cells)
    nothing: dict[str, Any] = {name: None}
    unknown = [replace(entry, **nothing) for entry in known]
    assert {cell.fits for cell in estimate(coarse, unknown, limits, "fp32").cells} == {0.0}


def test_the_spread_of_the_ratio_widens_the_interval_of_p99(coarse: list[ModelSpec], known: list[Measurement]) -> None:
    uneven = [
        replace(entry, p99_ms=(entry.p99_ms or 0.0) * factor)
        for entry, factor in zip(known, (0.8, 1.25, 0.8, 1.25, 0.8, 1.25), strict=True)
    ]
    even_cells, uneven_cells = (estimate(coarse, entries, Limits(), "fp32").cells for entries in (known, uneven))
    index = next(index for index, cell in enumerate(even_cells) if not cell.is_measured)
    assert uneven_cells[index].p99_ms == pytest.approx(even_cells[index].p99_ms)
    assert uneven_cells[index].deviation > 0.09 > even_cells[index].deviation


def test_a_p99_that_was_not_measured_comes_from_the_own_median(
    coarse: list[ModelSpec], known: list[Measurement]
) -> None:
    timing = replace(known[-1].timing, median_ms=2 * known[-1].timing.median_ms)
    slow = replace(known[-1], timing=timing, p99_ms=None)
    cells = estimate(coarse, [*known[:-1], slow], Limits(max_p99_ms=1.0), "fp32").cells
    (cell,) = [cell for cell in cells if cell.measurement is slow]
    assert cell.p99_ms == pytest.approx(1.25 * timing.median_ms)
    assert cell.p99_ci95_ms is not None


def test_the_measured_top1_counts_where_there_is_one(coarse: list[ModelSpec], known: list[Measurement]) -> None:
    trained = [replace(entry, top1=0.9) for entry in known]
    cells = estimate(coarse, trained, Limits(), "fp32").cells
    assert {round(cell.top1.share, 6) for cell in cells if cell.top1} == {0.9}
    assert {cell.top1.source for cell in cells if cell.top1} == {"measured", "interpolated"}


def test_a_result_becomes_a_measurement(make_result: Callable[..., Result]) -> None:
    result = make_result()
    latency = result.measured.latency
    assert latency is not None and latency.median_ci95_ms is not None
    entry = measurement_of(result)
    assert (entry.model, entry.timing.median_ms, entry.p99_ms) == (result.cell.model, latency.median_ms, latency.p99_ms)
    ci95 = latency.median_ci95_ms
    assert entry.timing.error == pytest.approx((ci95.high - ci95.low) / 3.92 / latency.median_ms)
    assert (entry.size_bytes, entry.rss_bytes, entry.added_rss_bytes) == (5_300_000, 125_000_000, 95_000_000)
    assert (entry.top1, entry.id, dict(entry.timing.layer_ms)) == (0.99, result.id, {})


def test_a_disturbed_network_does_not_move_the_ratio_of_p99(coarse: list[ModelSpec], known: list[Measurement]) -> None:
    disturbed = [replace(known[0], p99_ms=20 * (known[0].p99_ms or 0.0)), *known[1:]]
    assert estimate(coarse, disturbed, Limits(), "fp32").p99_ratio == pytest.approx(1.25)
