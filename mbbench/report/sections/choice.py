"""What `mbbench choose` found, as tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mbbench.analysis.choose import Candidate, Choice, Judged
from mbbench.report import selection, units
from mbbench.report.document import Document, Table, shorten
from mbbench.report.sections.tables import Name
from mbbench.result import Result


def document(choice: Choice, *, published: bool) -> Document:
    machines = {judged.candidate.result.machine.id for judged in (*choice.kept, *choice.lost)}

    def name(result: Result) -> str:
        return f"{result.cell.label}, {selection.device(result)}" if len(machines) > 1 else result.cell.label

    kept = tuple((*_figures(judged.candidate, name), _standing(judged, choice.pick)) for judged in choice.kept)
    lost = tuple((name(judged.candidate.result), "; ".join(judged.lost_by)) for judged in choice.lost)
    tables = (
        Table("Within the limits", ("Cell", "p99", "Top-1", "Memory", "Size", ""), kept),
        Table("Outside", ("Cell", "Lost by"), lost, numeric=False),
    )
    return Document(
        _headline(choice, name), tuple(table for table in tables if table.rows), tuple(_notes(choice, published))
    )


def shortened(document: Document) -> Document:
    tables = (shorten(table, "--output json or csv has them all") for table in document.tables)
    return replace(document, tables=tuple(tables))


def record(choice: Choice) -> list[dict[str, object]]:
    """A plain row a cell, those within the limits first."""
    return [
        {
            "id": one.candidate.result.id,
            "cell": one.candidate.result.cell.label,
            "machine": one.candidate.result.machine.id,
            "p99_ms": one.candidate.p99_ms,
            "top1": one.candidate.top1,
            "peak_rss_bytes": one.candidate.rss_bytes,
            "size_bytes": one.candidate.size_bytes,
            "pick": one.candidate is choice.pick,
            "pareto": not one.lost_by and one.beaten_by is None,
            "beaten_by": None if one.beaten_by is None else one.beaten_by.result.id,
            "lost_by": one.lost_by,
        }
        for one in (*choice.kept, *choice.lost)
    ]


def _figures(candidate: Candidate, name: Name) -> tuple[str, ...]:
    return (
        name(candidate.result),
        units.milliseconds(candidate.p99_ms),
        units.percent(candidate.top1),
        units.megabytes(candidate.rss_bytes),
        units.megabytes(candidate.size_bytes),
    )


def _standing(judged: Judged, pick: Candidate | None) -> str:
    if judged.candidate is pick:
        return "pick"
    return "Pareto" if judged.beaten_by is None else "beaten"


def _headline(choice: Choice, name: Name) -> str:
    count = len(choice.kept) + len(choice.lost)
    if choice.pick is None:
        return f"None of {count} cells keeps within the limits."
    title, p99, top1, rss, size = _figures(choice.pick, name)
    fit = f"{len(choice.kept)} of {count} cells fit"
    return f"Take {title}: p99 {p99}, top-1 {top1}, {rss} of memory, {size} on disk ({fit})."


def _notes(choice: Choice, published: bool) -> Sequence[str]:
    found = [
        "The pick is the fastest of those whose top-1 cannot be told from the best within the limits; nothing beats the"
        " Pareto set in p99, top-1, memory and size at once."
    ]
    if published:
        found.append("Top-1 is published, of the released ImageNet checkpoints and the paper, not measured here.")
    else:
        sources = {(data.name, data.images) for one in (*choice.kept, *choice.lost)
                   if (data := one.candidate.result.data) is not None and one.candidate.top1 is not None}  # fmt: skip
        measured = ", ".join(f"{images} images of {name}" for name, images in sorted(sources))
        found.append(f"Top-1 is measured, on {measured}." if measured else "No top-1 was measured.")
        if len(sources) > 1:
            found.append("Accuracies on different images cannot be compared: choose from results of one data set.")
    return found
