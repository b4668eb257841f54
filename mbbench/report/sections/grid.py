"""MobileNetV1's two dials, width and resolution: heat maps of what was measured, and the paper's Tables 6 and 7."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from mbbench.models import paper
from mbbench.models.cost import cost_of
from mbbench.report import units
from mbbench.report.document import Section, Table
from mbbench.report.selection import measured, subjects
from mbbench.result import Result

_TABLES = (6, 7)


def section(results: Sequence[Result], *, several_machines: bool) -> Section:
    groups: dict[tuple[str, str, str], list[Result]] = {}
    for one in measured(subjects(results)):
        model = one.result.cell.model
        if model.family == "mobilenet_v1" and model.variant == "standard" and model.widths is None:
            machine = one.result.machine.cpu if several_machines else ""
            groups.setdefault((machine, one.result.cell.backend, one.result.cell.precision), []).append(one.result)
    maps = [
        found
        for (machine, backend, precision), group in groups.items()
        for found in _maps(group, f"{backend} in {precision}{machine and ', ' + machine}")
    ]
    text = (
        "Rows are width multipliers (alpha), columns resolutions. Mult-Adds fall with about the square of either; what"
        " a chip makes of that is measured."
    )
    return Section("grid", "Width and resolution", (text,), (*maps, _beside_the_paper(results)))


def _maps(group: Sequence[Result], where: str) -> list[Table]:
    """Median latency and, where it was measured, top-1; nothing for a single row or column of one."""
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

    found = [table(f"Median latency in ms, {where}", Result.median_ms, units.number)]
    if any(result.top1() is not None for result in group):
        found.append(table(f"Top-1, {where}", Result.top1, units.percent))
    return found


def _shades(values: Sequence[Sequence[float | None]]) -> tuple[tuple[float | None, ...], ...]:
    """0 for the smallest, 1 for the largest, by their logarithms."""
    logs = [[None if not value else math.log(value) for value in row] for row in values]
    known = [value for row in logs for value in row if value is not None]
    low, span = min(known, default=0.0), max(known, default=0.0) - min(known, default=0.0)
    return tuple(tuple(None if v is None else (v - low) / span if span else 0.0 for v in row) for row in logs)


def _beside_the_paper(results: Sequence[Result]) -> Table:
    rows = []
    for row in paper.ROWS:
        if row.spec is None or not set(row.tables) & set(_TABLES):
            continue
        cost = cost_of(row.spec)
        own = [one.result for one in measured(subjects(results)) if paper.row_of(one.result.cell.model) is row]
        fastest = min((m for result in own if (m := result.median_ms()) is not None), default=None)
        best = max((top1 for result in own if (top1 := result.top1()) is not None), default=None)
        rows.append(
            (
                row.name,
                f"{row.top1_percent:.1f} %",
                f"{row.mult_adds} M",
                units.millions(cost.mult_adds),
                f"{row.parameters} M",
                units.millions(cost.weights),
                units.milliseconds(fastest),
                units.percent(best),
            )
        )
    return Table(
        "The paper's Tables 6 and 7",
        ("", "Top-1", "Mult-Adds", "counted", "Parameters", "counted", "Lowest median", "Best top-1"),
        tuple(rows),
        notes=(
            "Top-1, Mult-Adds and parameters as printed (ImageNet); counted at 1000 classes. The last two columns were"
            " measured here, the top-1 on the images named under Cells.",
        ),
    )
