"""The outcome of `mbbench fit`, as a document and as plain data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from mbbench.analysis.choose import Limits
from mbbench.fit.estimate import Estimate
from mbbench.fit.search import TOLERANCE, Fit, best_of
from mbbench.report import units
from mbbench.report.document import Document, Table
from mbbench.spec import Cell

_Write = Callable[[Estimate], str]
_BAR = 16  # characters of the bar for the largest alpha


def fit_document(fits: Mapping[Cell, Fit], limits: Limits) -> Document:
    """Return the pick, the border of each backend and precision, and how much of it was measured."""
    searched = {cell: fit for cell, fit in fits.items() if fit.cells}
    tables = [_border_table(cell, fit, limits) for cell, fit in searched.items()]
    if len(searched) > 1:
        tables.append(_setup_table(searched))
    return Document(_headline(fits), tuple(tables), tuple(_notes(fits, limits)))


def record(fits: Mapping[Cell, Fit]) -> list[dict[str, object]]:
    """Return plain data of each backend and precision, with every network of the grid."""
    best = best_of(fits)
    return [
        {
            "backend": cell.backend,
            "device": cell.device,
            "precision": cell.precision,
            "best": cell is best,
            "pick": None if fit.pick is None else _cell_record(fit.pick),
            "border": [
                {
                    "resolution": row.resolution,
                    "alpha": None if row.largest is None else row.largest.model.alpha,
                    "too_large_alpha": None if row.too_large is None else row.too_large.model.alpha,
                    "uncertainty": row.uncertainty,
                }
                for row in fit.border
            ],
            "uncertainty": fit.uncertainty,
            "p99_ratio": fit.p99_ratio,
            "measured": len(fit.measured),
            "reused": fit.reused,
            "failure": fit.failure,
            "cells": [_cell_record(estimate) for estimate in fit.cells],
        }
        for cell, fit in fits.items()
    ]


def _cell_record(cell: Estimate) -> dict[str, object]:
    return {
        "alpha": cell.model.alpha,
        "resolution": cell.model.resolution,
        "known": _known(cell),
        "id": None if cell.measurement is None else cell.measurement.id,
        "mult_adds": cell.mult_adds,
        "median_ms": cell.median_ms,
        "p99_ms": cell.p99_ms,
        "p99_ci95_ms": cell.p99_ci95_ms,
        "size_bytes": cell.size_bytes,
        "peak_rss_bytes": cell.rss_bytes,
        "added_rss_bytes": cell.added_rss_bytes,
        "top1": None if cell.top1 is None else cell.top1.share,
        "top1_source": None if cell.top1 is None else cell.top1.source,
        "fits": cell.fits,
    }


def _known(cell: Estimate) -> str:
    return "measured" if cell.is_measured else "predicted"


def _border_table(setup: Cell, fit: Fit, limits: Limits) -> Table:
    """Return the largest alpha at each resolution: as a bar, or with size and memory where they are limited."""
    widest = max(cell.model.alpha for cell in fit.cells)
    costs: list[tuple[str, float | None, _Write]] = [
        ("Size, MB", limits.max_size_bytes, lambda cell: _megabytes(cell.size_bytes)),
        ("RSS, MB", limits.max_rss_bytes, lambda cell: _megabytes(cell.rss_bytes)),
        ("Added, MB", limits.max_added_rss_bytes, lambda cell: _megabytes(cell.added_rss_bytes)),
    ]
    limited: list[tuple[str, _Write]] = [(name, write) for name, limit, write in costs if limit is not None]
    bar: list[tuple[str, _Write]] = [("Border", lambda cell: _bar(cell.model.alpha / widest))]
    columns: list[tuple[str, _Write]] = [
        ("Alpha", lambda cell: f"{cell.model.alpha:g}"),
        *(limited or bar),  # both are too wide for 80 columns
        ("p99, ms [95 %]", lambda cell: units.number(cell.p99_ms, "", cell.p99_ci95_ms)),
        ("Top-1", lambda cell: units.percent(None if cell.top1 is None else cell.top1.share)),
        ("Known", _known),
    ]
    rows = tuple(
        (str(row.resolution), *(units.MISSING if row.largest is None else write(row.largest) for _, write in columns))
        for row in fit.border
    )
    title = f"Largest alpha that fits, {_setup_name(setup)}"
    return Table(title, ("Res", *(name for name, _ in columns)), rows, notes=(_progress(fit),))


def _setup_table(fits: Mapping[Cell, Fit]) -> Table:
    rows = []
    for cell, fit in fits.items():
        pick = fit.pick
        figures = (units.MISSING,) * 4
        if pick is not None:
            top1 = units.percent(None if pick.top1 is None else pick.top1.share)
            figures = (pick.model.label, units.milliseconds(pick.p99_ms, pick.p99_ci95_ms), top1, _known(pick))
        rows.append((_setup_name(cell), *figures))
    return Table("Pick of each", ("Backend", "Network", "p99", "Top-1", "Known"), tuple(rows), numeric=False)


def _bar(share: float) -> str:
    """Return a bar of fixed width, filled to `share`."""
    filled = round(share * _BAR)
    return "█" * filled + "░" * (_BAR - filled)


def _megabytes(size_bytes: float | None) -> str:
    return units.number(None if size_bytes is None else size_bytes / 1e6)


def _setup_name(cell: Cell) -> str:
    return f"{cell.backend} {cell.device}".rstrip() + ("" if cell.precision == "fp32" else f" in {cell.precision}")


def _progress(fit: Fit) -> str:
    reused = f" ({fit.reused} of them before)" if fit.reused else ""
    known = "certain" if fit.uncertainty == 0 else f"known to {fit.uncertainty * 100:.1f} %"
    return f"{len(fit.measured)} of {len(fit.cells)} networks measured{reused}; the border's p99 is {known}."


def _headline(fits: Mapping[Cell, Fit]) -> str:
    best = best_of(fits)
    pick = None if best is None else fits[best].pick
    if best is None or pick is None:
        return "No network is within the limits."
    words = [f"p99 {units.milliseconds(pick.p99_ms, pick.p99_ci95_ms)}"] if pick.p99_ms is not None else []
    words += [f"{_megabytes(pick.size_bytes)} MB on disk"]
    words += [f"top-1 {units.percent(pick.top1.share)} ({pick.top1.source})"] if pick.top1 is not None else []
    setup = _setup_name(best)
    return f"Use {pick.model.label} on {setup}: {', '.join(words)}. It was {_known(pick)}."


def _notes(fits: Mapping[Cell, Fit], limits: Limits) -> Iterator[str]:
    searched = [fit for fit in fits.values() if fit.cells]
    if searched:
        yield (
            "Measured: by this run or before it, stored in --results. Predicted: never stored; the interval is that of"
            " the prediction. Predicted sizes and memory are fitted to the measured networks."
        )
        ratios = [fit.p99_ratio for fit in searched if fit.p99_ratio is not None]
        if limits.max_p99_ms is not None and ratios:
            texts = " to ".join(units.significant(ratio) for ratio in sorted({min(ratios), max(ratios)}))
            yield f"A predicted p99 is the predicted median times {texts}, p99 over median of the measured networks."
        if any(fit.uncertainty > TOLERANCE for fit in searched):
            yield (
                f"The border is not known to {TOLERANCE * 100:.0f} %: --max-cells was reached, perhaps since p99 over"
                " median differs between networks. Raise it, or search on a quieter machine."
            )
        yield from _top1_notes(searched)
        outputs = sorted({cell.model.classes for fit in searched for cell in fit.cells})
        yield f"The networks have {' or '.join(map(str, outputs))} outputs, as the data has classes."
        if any(row.too_large is None and row.largest is not None for fit in searched for row in fit.border):
            yield "Where even the largest alpha of the grid fits, the border is beyond it: give a larger --alpha."
    for cell, fit in fits.items():
        if fit.failure is not None:
            yield f"{_setup_name(cell)}: {fit.failure.cause}."


def _top1_notes(fits: Sequence[Fit]) -> Iterator[str]:
    sources = {cell.top1.source for fit in fits for cell in fit.cells if cell.top1 is not None}
    if "measured" in sources:
        yield "Top-1 was measured on the data for measured networks, and lies on a plane through them for the others."
    elif sources:
        yield (
            "Top-1 is that of the released ImageNet checkpoints, interpolated between them, and extrapolated beyond"
            " alpha 0.25 to 1 and 128 to 224 pixels: not measured here."
        )
