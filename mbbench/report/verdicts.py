"""What a gate or a comparison says, before it has a format."""

from __future__ import annotations

from collections.abc import Sequence

from mbbench.checking import Checked
from mbbench.gate import CellVerdict, Change, Metric, Outcome, Verdict
from mbbench.report import units
from mbbench.report.content import Document, Table

WORDS: dict[Outcome, str] = {"pass": "pass", "fail": "FAIL", "inconclusive": "inconclusive"}
_NAMES: dict[Metric, str] = {
    "p50": "p50 latency",
    "p99": "p99 latency",
    "rss": "Peak memory",
    "size": "Size",
    "top1": "Top-1",
}
_COLUMNS = ("Metric", "Baseline", "Candidate", "Change [95 %]", "Limit", "Verdict")


def document(checked: Checked) -> Document:
    tables = tuple(_table(cell) for cell in checked.cells)
    warnings = [f"{c.name}: {c.found}; {c.remedy}." for c in checked.conditions if c.status == "warn"]
    return Document(headline(checked), tables, tuple(warnings))


def headline(checked: Checked) -> str:
    """`FAIL, 1 of 2 cells: 0.5 MobileNet-128 on openvino (p50 latency +5.1 %)`."""
    concerned = [cell for cell in checked.cells if cell.outcome == checked.outcome]
    named = "; ".join(f"{name(cell)} ({', '.join(_concerned(cell))})" for cell in concerned)
    text = f"{checked.outcome.upper()}, {len(concerned)} of {len(checked.cells)} cells"
    return f"{text}." if checked.outcome == "pass" else f"{text}: {named}."


def name(cell: CellVerdict) -> str:
    precision = "" if cell.cell.precision == "fp32" else f" {cell.cell.precision}"
    return f"{cell.cell.model.label}{precision} on {cell.cell.backend}"


def _concerned(cell: CellVerdict) -> list[str]:
    """The metrics that make the cell's outcome what it is, with their changes."""
    return [
        " ".join((_NAMES[v.change.metric], *([] if v.change.change is None else [amount(v.change, interval=False)])))
        for v in cell.verdicts
        if v.outcome == cell.outcome
    ]


def _table(cell: CellVerdict) -> Table:
    rows = tuple(
        (
            _NAMES[v.change.metric],
            value(v.change.metric, v.change.baseline),
            value(v.change.metric, v.change.candidate),
            amount(v.change),
            v.limit.text,
            WORDS[v.outcome],
        )
        for v in cell.verdicts
    )
    return Table(name(cell), _COLUMNS, rows, notes=tuple(dict.fromkeys(_notes(cell.verdicts))))


def _notes(verdicts: Sequence[Verdict]) -> list[str]:
    notes = []
    for verdict in verdicts:
        metric, found = _NAMES[verdict.change.metric], verdict.change
        if found.reason is not None:
            notes.append(
                f"{found.reason[0].upper()}{found.reason[1:]}." if found.change == 0 else f"{metric}: {found.reason}."
            )
        if verdict.confirmed is True:
            notes.append(f"{metric}: two rounds, in processes of their own, failed.")
        elif verdict.confirmed is False:
            notes.append(f"{metric}: the first round failed, the second did not.")
    return notes


def value(metric: Metric, found: float | None) -> str:
    match metric:
        case "p50" | "p99":
            return units.milliseconds(found)
        case "rss" | "size":
            return units.megabytes(None if found is None else int(found))
        case "top1":
            return units.percent(found)


def amount(found: Change, *, interval: bool = True) -> str:
    """`+2.1 % [+1.7, +2.6]`, and of top-1 `-0.3 pt [-1.1, +0.6]`."""
    if found.change is None:
        return units.NONE
    unit = "pt" if found.metric == "top1" else "%"
    text = f"{_signed(found.change)} {unit}"
    if found.ci95 is None or not interval:
        return text
    return f"{text} [{_signed(found.ci95.low)}, {_signed(found.ci95.high)}]"


def _signed(share: float) -> str:
    text = f"{share * 100:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text
