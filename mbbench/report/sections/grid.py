"""MobileNetV1's two multipliers, width and resolution: heat maps of the results, and the paper's Tables 6 and 7."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from mbbench.models import paper
from mbbench.models.cost import cost_of
from mbbench.report import units
from mbbench.report.document import Section, Table
from mbbench.report.selection import device_label, images_label, measurements, subjects
from mbbench.result import Result, Setup
from mbbench.spec import ModelSpec

_TABLES = (6, 7)
_ANY = ModelSpec()
_FEWEST_MEASURED = 5  # networks from which the others are predicted


def section(results: Sequence[Result]) -> Section | None:
    """Return heat maps of latency and top-1 for each runtime and precision, and the paper's networks; or None."""
    heat_maps = [heat_map for group, title in _groups(results) for heat_map in _heat_maps(group, title)]
    paper_table = _paper_table(results)
    section_tables = (*heat_maps, *((paper_table,) if paper_table.rows else ()))
    if not section_tables:
        return None
    text = (
        "Rows are width multipliers (alpha), columns are input resolutions. Mult-Adds grow roughly with the square of"
        " either one; the tables show the latency and the accuracy that were measured."
    )
    return Section("grid", "Width and resolution", (text,) if heat_maps else (), section_tables)


def _groups(results: Sequence[Result]) -> list[tuple[list[Result], str]]:
    """Return the MobileNetV1 of each setup in which some were measured, and the setup's title."""
    groups: dict[tuple[Setup, str], list[Result]] = {}
    for result in subjects(results):
        model = result.cell.model
        if model.family == "mobilenet_v1" and model.variant == "standard" and model.widths is None:
            setup = result.setup.same_but(model=_ANY, weights=None, data=None)
            groups.setdefault((setup, images_label(result)), []).append(result)
    devices = {device_label(result) for group in groups.values() for result in group}
    return [
        (
            group,
            f"{setup.backend} in {setup.precision}{f', {device_label(group[0])}' if len(devices) > 1 else ''}",
        )
        for (setup, _), group in groups.items()
        if measurements(group)
    ]


def predicted_maps(results: Sequence[Result], models: Sequence[ModelSpec]) -> list[Table]:
    """Return the heat maps of latency over the whole grid of `models`, of each setup with networks to predict."""
    return [
        table
        for group, title in _groups(results)
        for table in _heat_maps(group, title, models)
        if table.hollow is not None
    ]


def _heat_maps(group: Sequence[Result], title: str, models: Sequence[ModelSpec] = ()) -> list[Table]:
    """Return the median latency and, if it was measured, top-1; an empty list for a single network.

    The axes are those of the measured networks and of `models`.
    """
    networks = (*(result.cell.model for result in group if result.failure is None), *models)
    alphas = sorted({model.alpha for model in networks}, reverse=True)
    resolutions = sorted({model.resolution for model in networks}, reverse=True)
    if len(alphas) * len(resolutions) < 2:
        return []
    cells: dict[tuple[float, int], Result | None] = {  # None: it failed
        (result.cell.model.alpha, result.cell.model.resolution): None if result.failure is not None else result
        for result in group
    }

    def table(title: str, value_of: Callable[[Result], float | None], write: Callable[[float | None], str]) -> Table:
        values = [
            [None if (result := cells.get((alpha, size))) is None else value_of(result) for size in resolutions]
            for alpha in alphas
        ]
        rows = tuple((str(alpha), *map(write, row)) for alpha, row in zip(alphas, values, strict=True))
        return Table(title, ("alpha", *map(str, resolutions)), rows, shades=_shades(values))

    tables = [_latency_map(cells, alphas, resolutions, f"Median latency in ms, {title}")]
    if any(result is not None and result.top1() is not None for result in cells.values()):
        tables.append(table(f"Top-1, {title}", Result.top1, units.percent))
    return tables


def _latency_map(
    cells: Mapping[tuple[float, int], Result | None], alphas: Sequence[float], resolutions: Sequence[int], title: str
) -> Table:
    """Return the median latencies; with enough measured networks, those without a cell are predicted and marked."""
    results = {place: result for place, result in cells.items() if result is not None}
    measured = {place: median_ms for place, result in results.items() if (median_ms := result.median_ms()) is not None}
    places = [[(alpha, size) for size in resolutions] for alpha in alphas]
    open_places = [place for row in places for place in row if place not in cells]
    predicted: dict[tuple[float, int], float] = {}
    if open_places and len(measured) >= _FEWEST_MEASURED:
        from mbbench.fit.latency import Predictor
        from mbbench.fit.measurement import measurement_of

        known = [results[place] for place in sorted(measured)]
        predictor = Predictor([measurement_of(result).timing for result in known])
        models = [replace(known[0].cell.model, alpha=alpha, resolution=size) for alpha, size in open_places]
        medians_ms = [prediction.median_ms for prediction in predictor.predict(models)]
        predicted = dict(zip(open_places, medians_ms, strict=True))
    values = [[measured.get(place, predicted.get(place)) for place in row] for row in places]
    hollow = tuple(tuple(place in predicted for place in row) for row in places)
    rows = tuple(
        (str(alpha), *(f"{'≈' * is_hollow}{units.number(value)}" for value, is_hollow in zip(*pair, strict=True)))
        for alpha, *pair in zip(alphas, values, hollow, strict=True)
    )
    note = f"≈: predicted from the {len(measured)} measured networks, as by `mbbench fit`."
    return Table(
        title, ("alpha", *map(str, resolutions)), rows, shades=_shades(values),
        hollow=hollow if predicted else None, notes=(note,) if predicted else (),
    )  # fmt: skip


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
