"""Which network to measure next, until the border between what fits and what does not is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from mbbench.analysis.choose import Limits
from mbbench.errors import UsageError
from mbbench.fit.estimate import Estimate, Estimates, estimate
from mbbench.fit.latency import Z95
from mbbench.fit.measurement import Measurement, place_of
from mbbench.fit.spread import corners
from mbbench.result import Failure
from mbbench.spec import Cell, ModelSpec, Precision

TOLERANCE = 0.03  # half the width of a predicted p99's 95 % interval that is narrow enough, as a share
_CERTAIN = 0.975  # probability at which a network fits, or not, without being measured

Measure = Callable[[ModelSpec], Measurement | Failure]


@dataclass(frozen=True, slots=True)
class BorderCell:
    """The largest alpha that fits at a resolution (None: not even the smallest), and the next one, which does not."""

    resolution: int
    largest: Estimate | None
    too_large: Estimate | None

    @property
    def uncertainty(self) -> float:
        """How far the p99 of these two may be off, as a share: 0 if both are measured or certain."""
        pair = (self.largest, self.too_large)
        return max((_uncertainty(cell) for cell in pair if cell is not None), default=0.0)


@dataclass(frozen=True, slots=True)
class Fit:
    """The outcome of a search, cells in the order of the grid. `pick` is None if nothing fits.

    `reused`: the number of measurements that were there before. `failure`: why the search ended early, if it did;
    `cells` is empty if nothing was measured.
    """

    cells: tuple[Estimate, ...]
    border: tuple[BorderCell, ...]
    pick: Estimate | None
    p99_ratio: float | None
    reused: int
    failure: Failure | None = None

    @property
    def measured(self) -> tuple[Estimate, ...]:
        return tuple(cell for cell in self.cells if cell.is_measured)

    @property
    def uncertainty(self) -> float:
        """How far the p99 next to the border may be off, as a share."""
        return max((row.uncertainty for row in self.border), default=0.0)


def _uncertainty(cell: Estimate) -> float:
    """Return 0 for a cell that is measured, or certain to fit or not to fit."""
    certain = not 1 - _CERTAIN < cell.fits < _CERTAIN
    return 0.0 if cell.deviation == 0 or certain else math.expm1(Z95 * cell.deviation)


def border_of(cells: Sequence[Estimate]) -> tuple[BorderCell, ...]:
    """Return the border at each resolution, the largest resolution first."""
    border = []
    for resolution in sorted({cell.model.resolution for cell in cells}, reverse=True):
        column = sorted((cell for cell in cells if cell.model.resolution == resolution), key=lambda c: c.model.alpha)
        last = max((index for index, cell in enumerate(column) if cell.fits >= 0.5), default=-1)
        border.append(
            BorderCell(
                resolution,
                column[last] if last >= 0 else None,
                column[last + 1] if last + 1 < len(column) else None,
            )
        )
    return tuple(border)


def pick_of(cells: Sequence[Estimate], min_top1: float | None) -> Estimate | None:
    """Return the cell that fits with the best top-1, of equal ones the largest; the largest, if no top-1 is known."""
    fitting = [
        cell
        for cell in cells
        if cell.fits >= 0.5 and (min_top1 is None or (cell.top1 is not None and cell.top1.share >= min_top1))
    ]
    return max(fitting, key=_rank, default=None)


def best_of(fits: Mapping[Cell, Fit]) -> Cell | None:
    """Return the setup whose pick has the best top-1, as in `pick_of`; None if nothing fits in any."""
    picks = {cell: fit.pick for cell, fit in fits.items() if fit.pick is not None}
    return max(picks, key=lambda cell: _rank(picks[cell]), default=None)


def _rank(cell: Estimate) -> tuple[float, int]:
    return 0.0 if cell.top1 is None else round(cell.top1.share, 4), cell.mult_adds


def most_informative(estimates: Estimates) -> Estimate | None:
    """Return the unmeasured cell whose measurement tells most about the border, or None if nothing is open.

    It reduces most the variance of the logarithmic latencies of all cells, weighted by how open it is whether they fit.
    """
    import numpy as np

    cells, covariance = estimates.cells, estimates.covariance
    open_share = np.array([0.0 if cell.is_measured else cell.fits * (1 - cell.fits) for cell in cells])
    gains = (covariance**2 @ open_share) / (np.diag(covariance) + estimates.repeat_variance)
    gains[[cell.is_measured for cell in cells]] = 0.0
    best = int(np.argmax(gains))
    return cells[best] if gains[best] > 0 else None


def search(
    models: Sequence[ModelSpec],
    limits: Limits,
    measure: Measure,
    known: Sequence[Measurement] = (),
    *,
    precision: Precision = "fp32",
    max_cells: int,
) -> Fit:
    """Measure networks of the grid `models` until the border of `limits` is known, and return it.

    The corners of the grid come first. Then the most informative network is measured, until the p99 of every network
    next to the border is known to 3 %, or `max_cells` were measured besides those `known` before. At last the
    pick is measured; if it misses the limits, so is the next one. A failure ends the search. Raises `UsageError` if
    `max_cells` does not exceed the number of corners.
    """
    first = corners(models)
    if max_cells <= len(first):
        raise UsageError(f"--max-cells is too low: {max_cells}", f"give at least {len(first) + 1}")
    measured = {place_of(entry.model): entry for entry in known}
    outcome = Fit((), (), None, None, len(measured))
    while True:
        model = next((corner for corner in first if place_of(corner) not in measured), None)
        if measured and model is None:
            estimates = estimate(models, list(measured.values()), limits, precision)
            outcome = _assess(estimates, limits, outcome.reused)
            model = _next_model(estimates, outcome, max_cells + outcome.reused - len(measured))
        if model is None:
            return outcome
        entry = measure(model)
        if isinstance(entry, Failure):
            if measured:
                outcome = _assess(estimate(models, list(measured.values()), limits, precision), limits, outcome.reused)
            return replace(outcome, failure=entry)
        measured[place_of(model)] = entry


def _assess(estimates: Estimates, limits: Limits, reused: int) -> Fit:
    pick = pick_of(estimates.cells, limits.min_top1)
    return Fit(estimates.cells, border_of(estimates.cells), pick, estimates.p99_ratio, reused)


def _next_model(estimates: Estimates, outcome: Fit, left: int) -> ModelSpec | None:
    """Return the network to measure next, None if the search is over; `left` may still be measured."""
    cell = most_informative(estimates) if left > 1 and outcome.uncertainty > TOLERANCE else None
    pick = outcome.pick
    if cell is None and left > 0 and pick is not None and not pick.is_measured:
        cell = pick
    return None if cell is None else cell.model
