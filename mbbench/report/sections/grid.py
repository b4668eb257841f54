"""MobileNetV1's two multipliers, width and resolution: heat maps of the results, and the paper's Tables 6 and 7."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from mbbench.models import paper
from mbbench.models.cost import cost_of
from mbbench.report import units
from mbbench.report.document import Section, Table
from mbbench.report.selection import device_label, images_label, measurements, subjects
from mbbench.result import Result, Setup
from mbbench.spec import ModelSpec

_TABLES = (6, 7)
_ANY = ModelSpec()


def section(results: Sequence[Result]) -> Section | None:
    """Return heat maps of latency and top-1 for each runtime and precision, and the paper's networks; or None."""
    groups: dict[tuple[Setup, str], list[Result]] = {}
    for measurement in measurements(subjects(results)):
        result, model = measurement.result, measurement.result.cell.model
        if model.family == "mobilenet_v1" and model.variant == "standard" and model.widths is None:
            setup = result.setup.same_but(model=_ANY, weights=None, data=None)
            groups.setdefault((setup, images_label(result)), []).append(result)
    devices = {device_label(result) for group in groups.values() for result in group}
    heat_maps = [
        heat_map
        for (setup, _), group in groups.items()
        for heat_map in _heat_maps(
            group,
            f"{setup.backend} in {setup.precision}{f', {device_label(group[0])}' if len(devices) > 1 else ''}",
        )
    ]
    paper_table = _paper_table(results)
    section_tables = (*heat_maps, *((paper_table,) if paper_table.rows else ()))
    if not section_tables:
        return None
    text = (
        "Rows are width multipliers (alpha), columns are input resolutions. Mult-Adds grow roughly with the square of"
        " either one; the tables show the latency and the accuracy that were measured."
    )
    return Section("grid", "Width and resolution", (text,) if heat_maps else (), section_tables)


def _heat_maps(group: Sequence[Result], title: str) -> list[Table]:
    """Return the median latency and, if it was measured, top-1; an empty list for a single network."""
    alphas = sorted({result.cell.model.alpha for result in group}, reverse=True)
    resolutions = sorted({result.cell.model.resolution for result in group}, reverse=True)
    if len(alphas) * len(resolutions) < 2:
        return []
    cells = {(result.cell.model.alpha, result.cell.model.resolution): result for result in group}

    def table(title: str, value_of: Callable[[Result], float | None], write: Callable[[float | None], str]) -> Table:
        values = [
            [value_of(cells[alpha, size]) if (alpha, size) in cells else None for size in resolutions]
            for alpha in alphas
        ]
        rows = tuple((str(alpha), *map(write, row)) for alpha, row in zip(alphas, values, strict=True))
        return Table(title, ("alpha", *map(str, resolutions)), rows, shades=_shades(values))

    tables = [table(f"Median latency in ms, {title}", Result.median_ms, units.number)]
    if any(result.top1() is not None for result in group):
        tables.append(table(f"Top-1, {title}", Result.top1, units.percent))
    return tables


def _shades(values: Sequence[Sequence[float | None]]) -> tuple[tuple[float | None, ...], ...]:
    """Return 0 for the smallest value and 1 for the largest, on a logarithmic scale."""
    logs = [[None if not value else math.log(value) for value in row] for row in values]
    known = [value for row in logs for value in row if value is not None]
    low, span = min(known, default=0.0), max(known, default=0.0) - min(known, default=0.0)
    return tuple(tuple(None if v is None else (v - low) / span if span else 0.0 for v in row) for row in logs)


def _paper_table(results: Sequence[Result]) -> Table:
    """Return the measured networks of the paper's Tables 6 and 7 with printed, counted and measured figures."""
    rows = []
    for row in paper.ROWS:
        if not set(row.tables) & set(_TABLES):
            continue
        cost = cost_of(row.spec)
        same_network = [
            measurement.result
            for measurement in measurements(subjects(results))
            if paper.row_of(measurement.result.cell.model) is row
        ]
        if not same_network:
            continue
        lowest = min((ms for result in same_network if (ms := result.median_ms()) is not None), default=None)
        best = max((top1 for result in same_network if (top1 := result.top1()) is not None), default=None)
        rows.append(
            (
                row.name,
                f"{row.top1_percent:.1f} %",
                f"{row.mult_adds} M ({units.millions(cost.mult_adds)})",
                f"{row.parameters} M ({units.millions(cost.weights)})",
                units.milliseconds(lowest),
                units.percent(best),
            )
        )
    return Table(
        "The paper's Tables 6 and 7",
        (
            "Network",
            "Top-1, paper",
            "Mult-Adds, paper (counted)",
            "Parameters, paper (counted)",
            "Lowest median here",
            "Best top-1 here",
        ),
        tuple(rows),
        notes=(
            "Paper: as printed, for ImageNet. Counted: by mbbench, at 1000 classes. Here: measured, with top-1 on the"
            " images named under Cells.",
        ),
    )
