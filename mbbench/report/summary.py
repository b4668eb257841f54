"""The summary that `mbbench run` prints when it ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mbbench.report import selection, units
from mbbench.report.document import Document, Table
from mbbench.report.names import runtime_label
from mbbench.report.sections import tables as report_tables
from mbbench.report.sections import versus
from mbbench.report.sections.cell import cell_table, drop_text
from mbbench.report.sections.curves import curve_tables
from mbbench.report.sections.notes import collect_notes, noise_warning
from mbbench.result import Result


def summary_document(results: Sequence[Result]) -> Document:
    """Return the summary of `results`: a table of everything about a single cell, or tables that compare cells."""
    subjects = selection.subjects(results)
    tables: list[Table] = []
    if len(subjects) == 1:
        tables.append(cell_table(subjects[0]))
    elif subjects:
        models = {subject.cell.model for subject in subjects}
        name = runtime_label if len(models) == 1 else _label
        speed = report_tables.speed(subjects, name)
        if len(models) == 1:
            speed = replace(speed, title=f"Speed of {models.pop().label}")
        accuracy = report_tables.size_and_accuracy(subjects, name)
        tables += [speed, replace(accuracy, notes=(*accuracy.notes, *_drops(subjects)))]
        energy = report_tables.energy(subjects, name)
        tables += [energy] if energy.rows else []
    if (scenarios := report_tables.scenarios(subjects, _label)) is not None:
        tables.append(scenarios)
    tables += [table for subject in subjects for table in curve_tables(subject)]
    tables += versus.tables(results)
    return Document(headline(results), tuple(tables), tuple(collect_notes(results)))


def headline(results: Sequence[Result]) -> str:
    """Return one sentence with the figures of the subject that has the lowest median latency."""
    complete = selection.measurements(selection.subjects(results))
    if not complete:
        return "No measurement was completed."
    fastest = min(complete, key=lambda measurement: measurement.latency.median_ms)
    subject, latency = fastest.result, fastest.latency
    accuracy = subject.measured.accuracy
    per = "per image" if latency.batch == 1 else f"per batch of {latency.batch}"
    if len(complete) > 1:
        per += f" (lowest median of {len(complete)} cells)"
    parts = [f"{subject.cell.label}: {units.milliseconds(latency.median_ms)} {per}"]
    if accuracy is not None and accuracy.top1 is not None and subject.data is not None:
        parts.append(f"{units.percent(accuracy.top1)} top-1 on {subject.data.name}")
    if subject.artifact is not None:
        parts.append(f"{units.megabytes(subject.artifact.size_bytes)} on disk")
    for baseline in selection.measurements(versus.baselines_of(subject, results)):
        if baseline.result.cell.model.family == "vgg16":
            ratio = units.ratio(baseline.latency.median_ms, latency.median_ms)
            parts.append(f"{ratio} faster than VGG16 on the same runtime")
    return ", ".join(parts) + "."


def _label(result: Result) -> str:
    return result.cell.label


def _drops(results: Sequence[Result]) -> tuple[str, ...]:
    """Return a note on the top-1 that each cell in a lower precision lost, and a warning if INT8 is meaningless."""
    notes = [
        f"{runtime_label(result)} against fp32: {drop_text(accuracy.drop, accuracy.images)}."
        for result in results
        if result.cell.precision != "fp32"
        and (accuracy := result.measured.accuracy) is not None
        and accuracy.drop is not None
    ]
    return (*notes, *noise_warning(results))
