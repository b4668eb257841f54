"""A network beside VGG16 and GoogLeNet, and beside what the paper claims."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from mbbench.models import paper
from mbbench.report import selection, units
from mbbench.report.document import Table
from mbbench.result import Result


def tables(results: Sequence[Result]) -> list[Table]:
    """A table a subject; where several networks were measured, each runtime's largest in fp32 stands for all.

    What would stand below several alike stands below the last.
    """
    subjects = [result for result in selection.subjects(results) if result.failure is None]
    known = [result for result in results if result.cell.role == "baseline"]
    if len({subject.cell.model for subject in subjects}) > 1:
        largest: dict[tuple[str, str, str], Result] = {}
        for subject in subjects:
            key = (subject.machine.id, subject.cell.backend, subject.cell.device)
            if subject.cell.precision == "fp32" and baselines_of(subject, known):
                largest[key] = max(largest.get(key, subject), subject, key=lambda one: _mult_adds(one) or 0)
        subjects = list(largest.values())
    found = [against(subject, baselines) for subject in subjects if (baselines := baselines_of(subject, known))]
    last = {table.notes: index for index, table in enumerate(found)}
    return [table if last[table.notes] == index else replace(table, notes=()) for index, table in enumerate(found)]


def baselines_of(subject: Result, results: Sequence[Result]) -> list[Result]:
    """The baselines on the same machine and runtime at the same resolution, in the same precision or else in fp32."""
    own = (subject.machine.id, subject.cell.backend, subject.cell.device, subject.cell.model.resolution)
    found = [
        result
        for result in results
        if result.cell.role == "baseline"
        and (result.machine.id, result.cell.backend, result.cell.device, result.cell.model.resolution) == own
    ]
    alike = [result for result in found if result.cell.precision == subject.cell.precision]
    return alike or [result for result in found if result.cell.precision == "fp32"]


def against(subject: Result, baselines: Sequence[Result]) -> Table:
    """Measured and counted ratios beside the paper's claims for 1.0 MobileNet-224."""
    model = subject.cell.model
    columns = ["Quantity", family(subject)]
    for baseline in baselines:
        columns += [family(baseline), "ratio", "paper"]
    rows = []
    quantities = _QUANTITIES if subject.measured.energy is None else (*_QUANTITIES, _ENERGY)
    for name, value_of, render, claim in quantities:
        own = value_of(subject)
        row = [name, render(own)]
        for baseline in baselines:
            other = value_of(baseline)
            claims = paper.CLAIMS.get(baseline.cell.model.family)
            row += [render(other), units.ratio(other, own), claims[claim] if claims and claim is not None else ""]
        rows.append(tuple(row))
    published = ", ".join(
        f"{family(result) if result is not subject else model.label} {found[0]:.1f} % ({found[1]})"
        for result in (subject, *baselines)
        if (found := paper.published_top1(result.cell.model)) is not None
    )
    caption = (
        f"Ratios: the other network over {model.label}, at the same resolution and number of classes; paper: its"
        " claims for 1.0 MobileNet-224. The other networks have random weights. Published ImageNet top-1, not measured"
        f" here: {published}."
    )
    title = f"{model.label} against {' and '.join(map(family, baselines))} on {subject.cell.backend}"
    return Table(title, tuple(columns), tuple(rows), notes=(caption,))


def family(result: Result) -> str:
    return result.cell.model.label.rpartition("-")[0]


def _mult_adds(result: Result) -> int | None:
    return None if result.cost is None else result.cost.mult_adds


def _parameters(result: Result) -> int | None:
    return None if result.cost is None else result.cost.parameters


# Name, value, how to write it, and which of the paper's claims (parameters 0, Mult-Adds 1) it stands beside.
_QUANTITIES: tuple[tuple[str, Callable[[Result], Any], Callable[[Any], str], int | None], ...] = (
    ("Mult-Adds", _mult_adds, units.millions, 1),
    ("Parameters", _parameters, units.millions, 0),
    ("Size on disk", Result.size_bytes, units.megabytes, None),
    ("Median latency", Result.median_ms, units.milliseconds, None),
    ("Peak memory", Result.peak_rss_bytes, units.megabytes, None),
)
_ENERGY = ("Energy an image", Result.joules_per_image, units.millijoules, None)
