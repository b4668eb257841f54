"""Which network to measure next, until the border between what fits and what does not is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mbbench.analysis.choose import Limits
from mbbench.errors import UsageError
from mbbench.fit.estimate import Estimate, Estimates, estimate, place
from mbbench.result import Failure, Result
from mbbench.spec import ModelSpec

TOLERANCE = 0.03  # half the width of a predicted p99's 95 % interval that is narrow enough, as a share
_Z95 = 1.96
_CERTAIN = 0.975  # probability at which a network fits, or not, without being measured

Measure = Callable[[ModelSpec], Result]


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
    """The outcome of a search. `pick` is None if nothing fits; `failure`: why the search ended early, if it did.

    `uncertainty`: the largest of the border's, as a share. `reused`: the number of results that were there before.
    """

    backend: str
    precision: str
    cells: tuple[Estimate, ...]
    border: tuple[BorderCell, ...]
    pick: Estimate | None
    p99_ratio: float | None
    uncertainty: float
    reused: int
    failure: Failure | None = None

    @property
    def measured(self) -> tuple[Estimate, ...]:
        return tuple(cell for cell in self.cells if cell.is_measured)


def _uncertainty(cell: Estimate) -> float:
    """Return 0 for a cell that is measured, or certain to fit or not to fit."""
    certain = not 1 - _CERTAIN < cell.fits < _CERTAIN
    return 0.0 if cell.deviation == 0 or certain else math.expm1(_Z95 * cell.deviation)


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

    def rank(cell: Estimate) -> tuple[float, int]:
        return (0.0 if cell.top1 is None else round(cell.top1.share, 4), cell.mult_adds)

    fitting = [
        cell
        for cell in cells
        if cell.fits >= 0.5 and (min_top1 is None or (cell.top1 is not None and cell.top1.share >= min_top1))
    ]
    return max(fitting, key=rank, default=None)


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
    models: Sequence[ModelSpec], limits: Limits, measure: Measure, known: Sequence[Result], max_cells: int
) -> Fit:
    """Measure networks of the grid `models` until the border of `limits` is known, and return it.

    The corners of the grid come first. Then the most informative network is measured, until the p99 of every network
    next to the border is known to 3 %, or `max_cells` results are there, with those in `known`. At last the pick is
    measured; if it misses the limits, so is the next one. A result that failed ends the search. Raises `UsageError` if
    `max_cells` is below 5.
    """
    corners = _corners(models)
    if max_cells <= len(corners):
        raise UsageError(f"--max-cells is too low: {max_cells}", f"give at least {len(corners) + 1}")
    results = {place(result.cell.model): result for result in known}
    reused = len(results)
    failure: Failure | None = None
    for model in corners:
        if place(model) not in results and failure is None and len(results) < max_cells:
            failure = _add(results, measure(model))
    while failure is None:
        estimates = estimate(models, list(results.values()), limits)
        border = border_of(estimates.cells)
        pick = pick_of(estimates.cells, limits.min_top1)
        cell = None
        if len(results) < max_cells - 1 and any(row.uncertainty > TOLERANCE for row in border):
            cell = most_informative(estimates)
        if cell is None and pick is not None and not pick.is_measured and len(results) < max_cells:
            cell = pick
        if cell is None:
            break
        failure = _add(results, measure(cell.model))
    return _outcome(models, limits, results, reused, failure)


def _corners(models: Sequence[ModelSpec]) -> list[ModelSpec]:
    """Return the networks of smallest and largest alpha and resolution, without repetitions."""
    alphas = [model.alpha for model in models]
    sides = [model.resolution for model in models]
    wanted = [(alpha, side) for alpha in (min(alphas), max(alphas)) for side in (min(sides), max(sides))]
    return list({place(model): model for model in models if place(model) in wanted}.values())


def _add(results: dict[tuple[float, int], Result], result: Result) -> Failure | None:
    """Store the result unless it failed; return its failure."""
    if result.failure is None:
        results[place(result.cell.model)] = result
    return result.failure


def _outcome(
    models: Sequence[ModelSpec],
    limits: Limits,
    results: dict[tuple[float, int], Result],
    reused: int,
    failure: Failure | None,
) -> Fit:
    raise NotImplementedError
