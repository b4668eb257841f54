"""The outcome of `mbbench choose`, as a document and as plain data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from mbbench.analysis.choose import Assessment, Candidate, Choice
from mbbench.report import units
from mbbench.report.document import Document, Table, shorten
from mbbench.report.names import Name, namer


def choice_document(choice: Choice, *, published: bool) -> Document:
    """Return the pick, the cells within the limits and the others with the reason; `published` as in `choose`."""
    assessments = (*choice.within_limits, *choice.outside_limits)
    name = namer([assessment.candidate.result for assessment in assessments])
    within = tuple(
        (*_figures(assessment.candidate, name), _status(assessment, choice.pick)) for assessment in choice.within_limits
    )
    outside = tuple(
        (name(assessment.candidate.result), "; ".join(assessment.violations)) for assessment in choice.outside_limits
    )
    tables = (
        Table("Within the limits", ("Cell", "p99", "Top-1", "Memory", "Size", "Status"), within),
        Table("Outside the limits", ("Cell", "Reason"), outside, numeric=False),
        Table("By machine", ("Machine", "Pick"), tuple(_machine_rows(choice, name)), numeric=False),
    )
    return Document(
        _headline(choice, name), tuple(table for table in tables if table.rows), tuple(_notes(choice, published))
    )


def _machine_rows(choice: Choice, name: Name) -> Iterator[tuple[str, str]]:
    """Yield the verdict on each machine, if there are several."""
    choices = choice.by_machine()
    for machine in choices if len(choices) > 1 else ():
        candidate = machine.pick
        if candidate is not None:
            yield candidate.result.machine.cpu, name(candidate.result)
        elif machine.nearest is not None:
            nearest = machine.nearest.candidate.result
            reasons = "; ".join(machine.nearest.violations)
            yield nearest.machine.cpu, f"none is within the limits; nearest: {name(nearest)} ({reasons})"


def shortened(document: Document) -> Document:
    """Return the document with long tables cut to a readable length."""
    tables = (shorten(table, "--format json or csv writes all rows") for table in document.tables)
    return replace(document, tables=tuple(tables))


def record(choice: Choice) -> list[dict[str, object]]:
    """Return a row of plain data for each cell, those within the limits first."""
    return [
        {
            "id": assessment.candidate.result.id,
            "cell": assessment.candidate.result.cell.label,
            "machine": assessment.candidate.result.machine.id,
            "p99_ms": assessment.candidate.p99_ms,
            "top1": assessment.candidate.top1,
            "peak_rss_bytes": assessment.candidate.rss_bytes,
            "size_bytes": assessment.candidate.size_bytes,
            "pick": assessment.candidate is choice.pick,
            "pareto": not assessment.violations and assessment.dominated_by is None,
            "beaten_by": None if assessment.dominated_by is None else assessment.dominated_by.result.id,
            "lost_by": assessment.violations,
        }
        for assessment in (*choice.within_limits, *choice.outside_limits)
    ]


def _figures(candidate: Candidate, name: Name) -> tuple[str, ...]:
    return (
        name(candidate.result),
        units.milliseconds(candidate.p99_ms),
        units.percent(candidate.top1),
        units.megabytes(candidate.rss_bytes),
        units.megabytes(candidate.size_bytes),
    )


def _status(assessment: Assessment, pick: Candidate | None) -> str:
    if assessment.candidate is pick:
        return "pick"
    return "Pareto" if assessment.dominated_by is None else "dominated"


def _headline(choice: Choice, name: Name) -> str:
    count = len(choice.within_limits) + len(choice.outside_limits)
    if choice.pick is None:
        return f"None of {count} cells is within the limits."
    cell, p99, top1, rss, size = _figures(choice.pick, name)
    within = f"{len(choice.within_limits)} of {count} cells are within the limits"
    return f"Use {cell}: p99 {p99}, top-1 {top1}, {rss} of memory, {size} on disk ({within})."


def _notes(choice: Choice, published: bool) -> Sequence[str]:
    notes = [
        "The pick is the fastest cell whose top-1 is not distinguishable from the best within the limits. No cell is"
        " better than a Pareto cell in one of p99, top-1, memory and size without being worse in another."
    ]
    if published:
        notes.append("Top-1 is as published for the released ImageNet checkpoints and in the paper, not measured here.")
    else:
        sources = {(data.name, data.images) for assessment in (*choice.within_limits, *choice.outside_limits)
                   if (data := assessment.candidate.result.data) is not None
                   and assessment.candidate.top1 is not None}  # fmt: skip
        measured = ", ".join(f"{images} images of {name}" for name, images in sorted(sources))
        notes.append(f"Top-1 was measured on {measured}." if measured else "No top-1 was measured.")
        if len(sources) > 1:
            notes.append("Accuracies on different images cannot be compared: choose from results of one data set.")
    return notes
