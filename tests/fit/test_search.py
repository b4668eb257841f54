"""The search for the border, on made-up chips whose border is known."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mbbench.analysis.choose import Limits
from mbbench.errors import UsageError
from mbbench.fit.estimate import Estimates, estimate
from mbbench.fit.measurement import Measurement
from mbbench.fit.search import TOLERANCE, Fit, best_of, most_informative, search
from mbbench.result import Failure
from mbbench.spec import Cell, ModelSpec

MakeChip = Callable[..., Any]
P99_RATIO = 1.25  # of the made-up chip


def steps_off(fit: Fit, chip: Any, models: list[ModelSpec], limit_ms: float) -> int:
    """Return by how many steps of alpha the border is off, at the resolution where it is off most."""
    alphas = sorted({model.alpha for model in models})
    steps = []
    for row in fit.border:
        fitting = [
            index
            for index, alpha in enumerate(alphas)
            if chip.latency_ms(ModelSpec(alpha=alpha, resolution=row.resolution, classes=10)) * P99_RATIO <= limit_ms
        ]
        largest = -1 if row.largest is None else alphas.index(row.largest.model.alpha)
        steps.append(abs(largest - max(fitting, default=-1)))
    return max(steps)


@pytest.mark.parametrize("limit_ms", [0.6, 1.5, 4.0])
@pytest.mark.parametrize("reports_layers", [True, False])
def test_the_border_of_64_networks_is_found_in_at_most_10(
    chip: MakeChip, coarse: list[ModelSpec], limit_ms: float, reports_layers: bool
) -> None:
    truth = chip(noise=0.01, bend=0.15, reports_layers=reports_layers)
    fit = search(coarse, Limits(max_p99_ms=limit_ms), truth.measure, max_cells=10)
    assert len(fit.measured) <= 10
    assert steps_off(fit, replace(truth, noise=0.0), coarse, limit_ms) <= 1
    assert fit.pick is not None and fit.pick.is_measured


@pytest.mark.parametrize("limit_ms", [0.6, 3.0])
def test_the_border_of_544_networks_is_found_in_at_most_12(
    chip: MakeChip, fine: list[ModelSpec], limit_ms: float
) -> None:
    truth = chip(noise=0.01, bend=0.15)
    fit = search(fine, Limits(max_p99_ms=limit_ms), truth.measure, max_cells=12)
    assert fit.uncertainty <= TOLERANCE and len(fit.measured) <= 12
    assert steps_off(fit, truth, fine, limit_ms) <= 1


def test_a_limit_of_size_is_exact_and_needs_the_corners_and_the_pick(chip: MakeChip, coarse: list[ModelSpec]) -> None:
    fit = search(coarse, Limits(max_size_bytes=3.3e6), chip().measure, max_cells=10)
    assert {row.largest.model.alpha for row in fit.border if row.largest} == {0.5}
    assert fit.pick is not None and fit.pick.measurement is not None
    assert (fit.pick.model.alpha, fit.pick.model.resolution, len(fit.measured)) == (0.5, 224, 5)
    assert fit.pick.size_bytes == fit.pick.measurement.size_bytes
    others = [cell for cell in fit.cells if not cell.is_measured]
    assert [cell.size_bytes for cell in others] == pytest.approx(
        [chip().measure(cell.model).size_bytes for cell in others], rel=1e-3
    )


def test_the_pick_has_the_best_top1_and_min_top1_is_kept(chip: MakeChip, coarse: list[ModelSpec]) -> None:
    limits = Limits(max_p99_ms=1.5)
    fit = search(coarse, limits, chip().measure, max_cells=12)
    shares = [cell.top1.share for cell in fit.cells if cell.fits >= 0.5 and cell.top1]
    assert fit.pick is not None and fit.pick.top1 is not None and fit.pick.top1.share == max(shares)
    assert search(coarse, replace(limits, min_top1=0.7), chip().measure, max_cells=12).pick is None


def test_a_pick_that_misses_the_limit_when_measured_is_replaced(chip: MakeChip, coarse: list[ModelSpec]) -> None:
    """0.5/224, the first pick by size, turns out to be larger than predicted."""
    asked = []

    def measure(model: ModelSpec) -> Measurement:
        asked.append((model.alpha, model.resolution))
        entry: Measurement = chip().measure(model)
        return replace(entry, size_bytes=4e6) if asked[-1] == (0.5, 224) else entry

    fit = search(coarse, Limits(max_size_bytes=3.3e6), measure, max_cells=10)
    assert (0.5, 224) in asked
    assert (
        fit.pick is not None
        and fit.pick.is_measured
        and (fit.pick.model.alpha, fit.pick.model.resolution) != (0.5, 224)
    )


def test_known_measurements_are_not_repeated(chip: MakeChip, coarse: list[ModelSpec]) -> None:
    limits = Limits(max_p99_ms=1.5)
    first = search(coarse, limits, chip(noise=0.01).measure, max_cells=12)
    known = [cell.measurement for cell in first.measured if cell.measurement is not None]

    def refuse(model: ModelSpec) -> Measurement:
        raise AssertionError(f"{model.label} is measured again")

    again = search(coarse, limits, refuse, known, max_cells=12)
    assert (again.border, again.pick, again.reused) == (first.border, first.pick, len(known))
    # A search that was interrupted after six goes on where it was.
    asked: list[ModelSpec] = []

    def measure(model: ModelSpec) -> Measurement:
        asked.append(model)
        entry: Measurement = chip(noise=0.01).measure(model)
        return entry

    search(coarse, limits, measure, known[:3], max_cells=12)
    assert not {entry.model for entry in known[:3]} & set(asked)


def test_stored_networks_leave_room_for_the_corners_and_the_pick(chip: MakeChip, coarse: list[ModelSpec]) -> None:
    truth = chip()
    inner = [model for model in coarse if 0.25 <= model.alpha <= 0.75 and 128 <= model.resolution <= 208]
    assert len(inner) > 12
    fit = search(coarse, Limits(max_p99_ms=1.5), truth.measure, [truth.measure(model) for model in inner], max_cells=12)
    assert {(cell.model.alpha, cell.model.resolution) for cell in fit.measured} >= {
        (alpha, side) for alpha in (0.125, 1.0) for side in (112, 224)
    }
    assert fit.pick is not None and fit.pick.is_measured


def test_a_failure_ends_the_search_with_what_is_known(chip: MakeChip, coarse: list[ModelSpec]) -> None:
    failure = Failure(cause="no memory", remedy="free some", exit_code=6)
    limits = Limits(max_p99_ms=1.5)
    assert search(coarse, limits, lambda _: failure, max_cells=10) == Fit((), (), None, None, 0, failure)
    left = [3]

    def measure(model: ModelSpec) -> Measurement | Failure:
        left[0] -= 1
        return chip().measure(model) if left[0] >= 0 else failure

    fit = search(coarse, limits, measure, max_cells=10)
    assert (len(fit.measured), fit.failure, len(fit.cells)) == (3, failure, 64)


def test_a_limit_on_p99_needs_a_measured_p99(chip: MakeChip, coarse: list[ModelSpec]) -> None:
    with pytest.raises(UsageError, match="no p99 was measured"):
        search(coarse, Limits(max_p99_ms=1.0), lambda m: replace(chip().measure(m), p99_ms=None), max_cells=10)


def test_too_few_cells_for_the_corners_are_refused(chip: MakeChip, coarse: list[ModelSpec]) -> None:
    with pytest.raises(UsageError, match="--max-cells is too low: 4; give at least 5"):
        search(coarse, Limits(max_p99_ms=1.0), chip().measure, max_cells=4)


def test_the_border_says_where_nothing_or_everything_fits(chip: MakeChip, coarse: list[ModelSpec]) -> None:
    fit = search(coarse, Limits(max_p99_ms=1e-3), chip().measure, max_cells=10)
    assert all(row.largest is None and row.too_large is not None for row in fit.border) and fit.pick is None
    fit = search(coarse, Limits(max_p99_ms=1e3), chip().measure, max_cells=10)
    assert all(row.too_large is None for row in fit.border)
    assert fit.pick is not None and (fit.pick.model.alpha, fit.pick.model.resolution) == (1.0, 224)


def test_the_next_network_reduces_the_doubt_about_all_and_is_not_measured_yet(
    chip: MakeChip, coarse: list[ModelSpec]
) -> None:
    """Three networks in doubt: the second tells about the third too; the first tells most, but is measured."""
    cells = estimate(coarse, [chip().measure(model) for model in coarse[:4]], Limits(), "fp32").cells
    measured, *open_cells = (replace(cell, fits=0.5) for cell in (cells[0], *cells[4:7]))
    covariance = np.array([[4.0, 4, 4, 4], [4, 1, 0.9, 0.1], [4, 0.9, 1, 0.1], [4, 0.1, 0.1, 1]])
    doubt = replace(open_cells[0], fits=0.4)
    estimates = Estimates((measured, doubt, open_cells[1], open_cells[2]), 1.25, covariance, 0.01)
    # Over 1.01, the gains are 0.24 + 0.25 (0.81 + 0.01) = 0.445, 0.24 0.81 + 0.25 (1 + 0.01) = 0.447, and 0.255.
    assert most_informative(estimates) is open_cells[1]
    decided = [replace(cell, fits=1.0) for cell in estimates.cells]
    assert most_informative(replace(estimates, cells=tuple(decided))) is None


def test_the_best_setup_has_the_pick_with_the_best_top1(chip: MakeChip, coarse: list[ModelSpec]) -> None:
    fast, slow = (
        Cell(model=coarse[0], role="subject", weights="random", backend=name, device="") for name in ("fast", "slow")
    )
    fits = {
        slow: search(coarse, Limits(max_p99_ms=1.0), chip().measure, max_cells=12),
        fast: search(coarse, Limits(max_p99_ms=2.0), chip().measure, max_cells=12),
    }
    assert best_of(fits) == fast
    assert best_of({}) is None
