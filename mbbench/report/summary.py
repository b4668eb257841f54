"""The summary that `mbbench run` prints when it ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mbbench.report import selection
from mbbench.report.document import Document, Table
from mbbench.report.headline import fastest_sentence
from mbbench.report.names import Name, namer, runtime_label
from mbbench.report.sections import tables as report_tables
from mbbench.report.sections import versus
from mbbench.report.sections.cell import cell_table, drop_text
from mbbench.report.sections.curves import curve_tables
from mbbench.report.sections.notes import collect_notes, noise_warning, weights_notes
from mbbench.result import Result


def summary_document(results: Sequence[Result]) -> Document:
    """Return the summary of `results`: a table of everything about a single cell, or tables that compare cells."""
    subjects = selection.subjects(selection.supported(results))
    tables: list[Table] = []
    if len(subjects) == 1:
        tables.append(cell_table(subjects[0]))
    elif subjects:
        models = {subject.cell.model for subject in subjects}
        told_apart = len(models) == 1 and len({runtime_label(subject) for subject in subjects}) == len(subjects)
        name = runtime_label if told_apart else namer(subjects)
        speed = report_tables.speed(subjects, name)
        if told_apart:
            speed = replace(speed, title=f"Speed of {models.pop().label}")
        accuracy = report_tables.size_and_accuracy(subjects, name)
        tables += [speed, replace(accuracy, notes=(*accuracy.notes, *_drops(subjects, name)))]
        energy = report_tables.energy(subjects, name)
        tables += [energy] if energy.rows else []
    if (scenarios := report_tables.scenarios(subjects, namer(subjects))) is not None:
        tables.append(scenarios)
    tables += [table for subject in subjects for table in curve_tables(subject)]
    tables += versus.tables(results)
    return Document(fastest_sentence(results), tuple(tables), tuple(collect_notes(results)))


def _drops(results: Sequence[Result], name: Name) -> tuple[str, ...]:
    """Return notes on the top-1 that cells in lower precisions lost and on the weights, and a warning of noise."""
    notes = [
        f"{name(result)} against fp32: {drop_text(accuracy.drop, accuracy.images, result.labels)}."
        for result in results
        if result.cell.precision != "fp32"
        and (accuracy := result.measured.accuracy) is not None
        and accuracy.drop is not None
    ]
    return (*notes, *weights_notes(results), *noise_warning(results))
