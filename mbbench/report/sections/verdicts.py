"""Verdicts of a gate and comparisons of stored results, as documents and tables."""

from __future__ import annotations

from collections.abc import Sequence

from mbbench.compare.changes import Change, Metric
from mbbench.compare.gate import Outcome, Verdict
from mbbench.compare.noise import Noise
from mbbench.compare.record import CellVerdict, GateRecord
from mbbench.compare.stored import CellComparison
from mbbench.report import units
from mbbench.report.document import Document, Table
from mbbench.report.names import namer
from mbbench.spec import Cell

_WORDS: dict[Outcome, str] = {"pass": "pass", "fail": "FAIL", "inconclusive": "inconclusive", "error": "ERROR"}
_NAMES: dict[Metric, str] = {
    "p50": "p50",
    "p99": "p99",
    "rss": "Peak RSS",
    "added-rss": "Added RSS",
    "size": "Size",
    "top1": "Top-1",
}
_COLUMNS = ("Metric", "Baseline", "Candidate", "Change [95 %]", "Limit", "Verdict")


def gate_document(gate: GateRecord) -> Document:
    """Return the headline, a table for each cell, and the warnings of a gate."""
    warnings = tuple(f"{c.name}: {c.found}; {c.remedy}." for c in gate.conditions if c.status == "warn")
    return Document(headline(gate), tuple(map(_table, gate.cells)), warnings)


def headline(gate: GateRecord) -> str:
    """Return the outcome and the cells that decide it, each with the reason: the metrics, or the cause of its failure.

    For example `FAIL, 1 of 2 cells: 0.5 MobileNet-128 on openvino (p50 +5.1 %)`.
    """
    deciding = [cell for cell in gate.cells if cell.outcome == gate.outcome]
    names = "; ".join(f"{cell_name(cell.cell)} ({_reason(cell)})" for cell in deciding)
    text = f"{gate.outcome.upper()}, {len(deciding)} of {len(gate.cells)} cells"
    text += "" if gate.outcome == "pass" else f": {names}"
    errors = 0 if gate.outcome == "error" else sum(cell.outcome == "error" for cell in gate.cells)
    return f"{text}; {errors} could not be measured." if errors else f"{text}."


def cell_name(cell: Cell) -> str:
    """Return `0.5 MobileNet-128 int8 on openvino`."""
    precision = "" if cell.precision == "fp32" else f" {cell.precision}"
    return f"{cell.model.label}{precision} on {cell.backend}"


def _reason(cell: CellVerdict) -> str:
    """Return the metrics that decide the cell's outcome, with their changes; for a cell that failed, the cause."""
    if cell.failure is not None:
        return cell.failure.cause
    return ", ".join(
        " ".join((_NAMES[v.change.metric], *([] if v.change.change is None else [change_text(v.change, ci=False)])))
        for v in cell.verdicts
        if v.outcome == cell.outcome
    )


def _table(cell: CellVerdict) -> Table:
    """Return a row per metric; for a cell that failed, one row for all of them and the reason below it."""
    if (failure := cell.failure) is not None:
        row = ("All", *(units.MISSING,) * (len(_COLUMNS) - 2), _WORDS["error"])
        note = f"Could not be measured: {failure.cause}; {failure.remedy}."
        return Table(cell_name(cell.cell), _COLUMNS, (row,), notes=(note,))
    rows = tuple(
        (
            _NAMES[v.change.metric],
            _value(v.change.metric, v.change.baseline),
            _value(v.change.metric, v.change.candidate),
            change_text(v.change),
            v.limit.text,
            _WORDS[v.outcome],
        )
        for v in cell.verdicts
    )
    notes = (*dict.fromkeys(_notes(cell.verdicts)), *_noise_notes(cell))
    return Table(cell_name(cell.cell), _COLUMNS, rows, notes=notes)


def _noise_notes(cell: CellVerdict) -> list[str]:
    """Return the smallest detectable changes if the machine was calibrated, and the limits that are below them."""
    if cell.noise is None or not cell.rounds:
        return []
    floors = {v.limit.metric: (v.limit, cell.noise.floors[v.limit.metric]) for v in cell.verdicts
              if v.limit.metric in cell.noise.floors}  # fmt: skip
    smallest = ", ".join(f"{_NAMES[metric]} {floor.detectable * 100:.1f} %" for metric, (_, floor) in floors.items())
    notes = [f"Smallest detectable changes on this machine (calibrated {cell.noise.time_utc[:10]}): {smallest}."]
    notes += [
        f"{_NAMES[metric]}: the limit of {limit.text} is below the smallest detectable change; raise it or --time."
        for metric, (limit, floor) in floors.items()
        if limit.worse < floor.detectable
    ]
    return notes


def _notes(verdicts: Sequence[Verdict]) -> list[str]:
    notes = []
    for verdict in verdicts:
        metric, change = _NAMES[verdict.change.metric], verdict.change
        if (reason := change.reason) is not None:
            notes.append(f"{reason[0].upper()}{reason[1:]}." if change.change == 0 else f"{metric}: {reason}.")
        if verdict.confirmed is True:
            notes.append(f"{metric}: beyond the limit in two rounds, each in processes of its own.")
        elif verdict.confirmed is False:
            notes.append(f"{metric}: beyond the limit in the first round, but not in the second.")
    return notes


def comparison_document(comparisons: Sequence[CellComparison]) -> Document:
    """Return a table for each cell that two sets of stored results have in common."""
    tables = []
    name = namer([cell.after for cell in comparisons])
    for cell in comparisons:
        rows = tuple(
            (
                _NAMES[metric.change.metric],
                _value(metric.change.metric, metric.change.baseline),
                _value(metric.change.metric, metric.change.candidate),
                change_text(metric.change),
                metric.word,
            )
            for metric in cell.metrics
        )
        notes = [f"{_NAMES[m.change.metric]}: {m.change.reason}." for m in cell.metrics if m.change.reason is not None]
        notes += [
            f"A latency of B exceeds a latency of A in {m.effect_size * 100:.0f} % of pairs (50 %: no difference)."
            for m in cell.metrics
            if m.effect_size is not None
        ]
        notes += [f"Compared although A and B differ in {reason}." for reason in cell.context_differences]
        tables.append(
            Table(name(cell.after), ("Metric", "A", "B", "Change [95 %]", "Verdict"), rows, notes=tuple(notes))
        )
    words = [metric.word for cell in comparisons for metric in cell.metrics]
    counts = ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words))
    headline = f"{len(comparisons)} cell{'s' * (len(comparisons) > 1)} compared: {counts}."
    note = (
        "A and B were measured at different times, so changes of the machine in between are part of the differences."
        " The intervals include such changes as far as `mbbench calibrate` measured them; `mbbench check` alternates A"
        " and B, so that they cancel out."
    )
    return Document(headline, tuple(tables), (note,))


def noise_table(cell: Cell, noise: Noise) -> Table:
    """Return a machine's noise floor for a cell, with a row per metric."""
    rows = tuple(
        (_NAMES[metric], *(f"{share * 100:.2f} %" for share in (floor.within, floor.between, floor.detectable)))
        for metric, floor in noise.floors.items()
    )
    return Table(
        f"{cell_name(cell)}: {noise.rounds} A/A rounds of {noise.seconds:g} s",
        ("Metric", "In a gate", "Between processes", "Smallest detectable change"),
        rows,
        notes=(
            "In a gate: standard deviation of the A/A change in a round of `mbbench check`. Between processes: standard"
            " deviation of the metric. The smallest detectable change fails a gate 95 times out of 100.",
        ),
    )


def change_text(change: Change, *, ci: bool = True) -> str:
    """Return `+2.1 % [+1.7, +2.6]`, for top-1 `-0.3 pt [-1.1, +0.6]`; without the interval unless `ci`."""
    if change.change is None:
        return units.MISSING
    unit = "pt" if change.metric == "top1" else "%"
    text = f"{_signed(change.change)} {unit}"
    if change.ci95 is None or not ci:
        return text
    return f"{text} [{_signed(change.ci95.low)}, {_signed(change.ci95.high)}]"


def _value(metric: Metric, value: float | None) -> str:
    match metric:
        case "p50" | "p99":
            return units.milliseconds(value)
        case "rss" | "added-rss" | "size":
            return units.megabytes(None if value is None else int(value))
        case "top1":
            return units.percent(value)


def _signed(share: float) -> str:
    text = f"{share * 100:+.1f}"
    if text in ("+0.0", "-0.0"):
        return "0.0"
    return text if abs(share) < 0.1 else f"{share * 100:+.0f}"
