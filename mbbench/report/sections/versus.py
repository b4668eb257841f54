"""Comparison of a network with its baselines, and with the paper's claims."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from mbbench.analysis.pairing import baselines_of
from mbbench.models import paper
from mbbench.report import selection, units
from mbbench.report.document import Table
from mbbench.report.names import backend_label
from mbbench.result import Result, Setup
from mbbench.spec import ModelSpec


def tables(results: Sequence[Result]) -> list[Table]:
    """Return a comparison table for each subject that has baselines.

    If several networks were measured, only the largest in fp32 on each machine, runtime and device gets a table. Of
    tables with the same notes, only the last keeps them.
    """
    subjects = [result for result in selection.subjects(results) if result.failure is None]
    baselines = [result for result in results if result.cell.role == "baseline"]
    if len({subject.cell.model for subject in subjects}) > 1:
        largest: dict[Setup, Result] = {}
        for subject in subjects:
            key = subject.setup.same_but(model=ModelSpec(), weights=None, data=None)
            if subject.cell.precision == "fp32" and baselines_of(subject, baselines):
                largest[key] = max(largest.get(key, subject), subject, key=lambda result: _mult_adds(result) or 0)
        subjects = list(largest.values())
    comparisons = [comparison_table(subject, of) for subject in subjects if (of := baselines_of(subject, baselines))]
    last = {table.notes: index for index, table in enumerate(comparisons)}
    return [
        table if last[table.notes] == index else replace(table, notes=()) for index, table in enumerate(comparisons)
    ]


def section_title(results: Sequence[Result]) -> str:
    """Return the section's title: the baselines' names, or those in the paper's claims if there are no baselines."""
    baselines = [result.cell.model for result in results if result.cell.role == "baseline"]
    names = dict.fromkeys(_name(model) for model in (baselines or (paper.VGG16, paper.GOOGLENET)))
    return f"Against {_join(names)}"


def comparison_table(subject: Result, baselines: Sequence[Result]) -> Table:
    """Return counted and measured quantities, their ratios, and the paper's claims for 1.0 MobileNet-224."""
    model = subject.cell.model
    in_paper = paper.row_of(model) is paper.row_of(ModelSpec()) and model.classes == 1000
    columns = ["Quantity", _network(subject)]
    for baseline in baselines:
        columns += [_network(baseline), "ratio", *(["paper"] if in_paper else [])]
    rows = []
    for name, value_of, render, claim in (*_QUANTITIES, *_MEASURED_ON_SOME_CHIPS):
        value = value_of(subject)
        if value is None and (name, value_of, render, claim) in _MEASURED_ON_SOME_CHIPS:
            continue
        row = [name, render(value)]
        for baseline in baselines:
            baseline_value = value_of(baseline)
            row += [render(baseline_value), units.ratio(baseline_value, value)]
            if in_paper:
                claims = paper.CLAIMS.get(baseline.cell.model.family)
                row.append(claims[claim] if claims and claim is not None else "")
        rows.append(tuple(row))
    published = ", ".join(
        f"{_network(result) if result is not subject else model.label} {top1[0]:.1f} % ({top1[1]})"
        for result in (subject, *baselines)
        if (top1 := paper.published_top1(result.cell.model, weights=result.cell.weights)) is not None
    )
    caption = [
        f"Ratio: the baseline's value divided by that of {model.label}, at the same resolution and number of classes."
    ]
    for other in (result.cell.model for result in baselines):
        if other.size != model.size:
            reason = "the smallest that it accepts" if max(other.size) > max(model.size) else "the longer side"
            caption.append(f"{other.label} has another: {reason}.")
    if in_paper:
        caption.append("Paper: its claim for 1.0 MobileNet-224.")
    if all(baseline.cell.weights == "random" for baseline in baselines):
        caption.append("The baselines have random weights.")
    if published:
        caption.append(f"Published ImageNet top-1, not measured here: {published}.")
    title = f"{model.label} against {_join(map(_network, baselines))} on {backend_label(subject)}"
    return Table(title, tuple(columns), tuple(rows), notes=(" ".join(caption),))


def _network(result: Result) -> str:
    return _name(result.cell.model)


def _name(model: ModelSpec) -> str:
    """Return the network's label without its resolution."""
    return model.label.rpartition("-")[0]


def _join(names: Iterable[str]) -> str:
    """Return `A`, `A and B` or `A, B and C`."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def _device_memory_bytes(result: Result) -> int | None:
    return result.measured.device_memory_bytes


def _mult_adds(result: Result) -> int | None:
    return None if result.cost is None else result.cost.mult_adds


def _parameters(result: Result) -> int | None:
    return None if result.cost is None else result.cost.parameters


# Name, value, formatter, and the index of the paper's claim on it (0: parameters, 1: Mult-Adds).
_Quantity = tuple[str, Callable[[Result], Any], Callable[[Any], str], int | None]
_QUANTITIES: tuple[_Quantity, ...] = (
    ("Mult-Adds", _mult_adds, units.millions, 1),
    ("Parameters", _parameters, units.millions, 0),
    ("Size on disk", Result.size_bytes, units.megabytes, None),
    ("Median latency", Result.median_ms, units.milliseconds, None),
    ("Peak memory", Result.peak_rss_bytes, units.megabytes, None),
)
_MEASURED_ON_SOME_CHIPS: tuple[_Quantity, ...] = (
    ("Device memory", _device_memory_bytes, units.megabytes, None),
    ("Energy per image", Result.joules_per_image, units.millijoules, None),
)
