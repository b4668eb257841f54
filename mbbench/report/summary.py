"""What `mbbench run` shows at its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mbbench.report import selection, units
from mbbench.report.document import Document, Table
from mbbench.report.names import device_of
from mbbench.report.sections import tables as report_tables
from mbbench.report.sections import versus
from mbbench.report.sections.cell import card, drop_text
from mbbench.report.sections.curves import curves
from mbbench.report.sections.notes import notes
from mbbench.result import Result


def document(results: Sequence[Result]) -> Document:
    subjects = selection.subjects(results)
    tables: list[Table] = []
    if len(subjects) == 1:
        tables.append(card(subjects[0]))
    elif subjects:
        models = {subject.cell.model for subject in subjects}
        name = device_of if len(models) == 1 else _label
        speed = report_tables.speed(subjects, name)
        if len(models) == 1:
            speed = replace(speed, title=f"Speed of {models.pop().label}")
        worth = report_tables.worth(subjects, name)
        tables += [speed, replace(worth, notes=(*worth.notes, *_losses(subjects)))]
        energy = report_tables.energy(subjects, name)
        tables += [energy] if energy.rows else []
    if (served := report_tables.served(subjects, _label)) is not None:
        tables.append(served)
    tables += [table for subject in subjects for table in curves(subject)]
    tables += versus.tables(results)
    return Document(headline(results), tuple(tables), tuple(notes(results)))


def headline(results: Sequence[Result]) -> str:
    """One sentence with the figures of the subject that has the lowest median."""
    whole = selection.measured(selection.subjects(results))
    if not whole:
        return "Nothing was measured completely."
    fastest = min(whole, key=lambda one: one.latency.median_ms)
    subject, latency = fastest.result, fastest.latency
    accuracy = subject.measured.accuracy
    what = "an image" if latency.batch == 1 else f"a batch of {latency.batch}"
    if len(whole) > 1:
        what += f" (the lowest median of {len(whole)} cells)"
    parts = [f"{subject.cell.label}: {units.milliseconds(latency.median_ms)} {what}"]
    if accuracy is not None and accuracy.top1 is not None and subject.data is not None:
        parts.append(f"{units.percent(accuracy.top1)} top-1 on {subject.data.name}")
    if subject.artifact is not None:
        parts.append(f"{units.megabytes(subject.artifact.size_bytes)} on disk")
    for other in selection.measured(versus.baselines_of(subject, results)):
        if other.result.cell.model.family == "vgg16":
            ratio = units.ratio(other.latency.median_ms, latency.median_ms)
            parts.append(f"{ratio} faster than VGG16 there")
    return ", ".join(parts) + "."


def _label(result: Result) -> str:
    return result.cell.label


def _losses(results: Sequence[Result]) -> tuple[str, ...]:
    """What each cell of a lower precision lost."""
    notes = [
        f"{device_of(result)} against fp32: {drop_text(accuracy.drop, accuracy.images)}."
        for result in results
        if result.cell.precision != "fp32"
        and (accuracy := result.measured.accuracy) is not None
        and accuracy.drop is not None
    ]
    return (*notes, *report_tables.noise(results))
