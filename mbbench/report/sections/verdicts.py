"""What a gate or a comparison says, before it has a format."""

from __future__ import annotations

from collections.abc import Sequence

from mbbench.compare.changes import Change, Metric
from mbbench.compare.gate import Outcome, Verdict
from mbbench.compare.noise import Noise
from mbbench.compare.record import CellVerdict, Checked
from mbbench.compare.stored import CellComparison
from mbbench.report import units
from mbbench.report.document import Document, Table
from mbbench.spec import Cell

WORDS: dict[Outcome, str] = {"pass": "pass", "fail": "FAIL", "inconclusive": "inconclusive"}
_NAMES: dict[Metric, str] = {
    "p50": "p50",
    "p99": "p99",
    "rss": "Peak RSS",
    "size": "Size",
    "top1": "Top-1",
}
_COLUMNS = ("Metric", "Baseline", "Candidate", "Change [95 %]", "Limit", "Verdict")


def document(checked: Checked) -> Document:
    tables = tuple(_table(cell) for cell in checked.cells if cell.failure is None)
    warnings = [f"{c.name}: {c.found}; {c.remedy}." for c in checked.conditions if c.status == "warn"]
    failed = [
        f"{name(c.cell)} could not be measured: {c.failure.cause}; {c.failure.remedy}."
        for c in checked.cells
        if c.failure
    ]
    return Document(headline(checked), tables, (*failed, *warnings))


def headline(checked: Checked) -> str:
    """`FAIL, 1 of 2 cells: 0.5 MobileNet-128 on openvino (p50 +5.1 %)`."""
    concerned = [cell for cell in checked.cells if cell.outcome == checked.outcome and cell.failure is None]
    named = "; ".join(f"{name(cell.cell)} ({', '.join(_concerned(cell))})" for cell in concerned)
    text = f"{checked.outcome.upper()}, {len(concerned)} of {len(checked.cells)} cells"
    text += "" if checked.outcome == "pass" else f": {named}"
    failed = sum(cell.failure is not None for cell in checked.cells)
    return f"{text}; {failed} could not be measured." if failed else f"{text}."


def name(cell: Cell) -> str:
    precision = "" if cell.precision == "fp32" else f" {cell.precision}"
    return f"{cell.model.label}{precision} on {cell.backend}"


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
    return Table(name(cell.cell), _COLUMNS, rows, notes=(*dict.fromkeys(_notes(cell.verdicts)), *_floor(cell)))


def _floor(cell: CellVerdict) -> list[str]:
    """What this machine can show of the cell, if it was calibrated, and which limits ask for more."""
    if cell.noise is None or not cell.rounds:
        return []
    floors = {v.limit.metric: (v.limit, cell.noise.floors[v.limit.metric]) for v in cell.verdicts
              if v.limit.metric in cell.noise.floors}  # fmt: skip
    shown = ", ".join(f"{_NAMES[metric]} {floor.detectable * 100:.1f} %" for metric, (_, floor) in floors.items())
    notes = [f"Smallest changes this machine can show (calibrated {cell.noise.time_utc[:10]}): {shown}."]
    notes += [
        f"{_NAMES[metric]}: the limit of {limit.text} is less than that; raise it, or --seconds."
        for metric, (limit, floor) in floors.items()
        if limit.worse < floor.detectable
    ]
    return notes


def _notes(verdicts: Sequence[Verdict]) -> list[str]:
    notes = []
    for verdict in verdicts:
        metric, found = _NAMES[verdict.change.metric], verdict.change
        if found.reason is not None:
            notes.append(
                f"{found.reason[0].upper()}{found.reason[1:]}." if found.change == 0 else f"{metric}: {found.reason}."
            )
        if verdict.confirmed is True:
            notes.append(f"{metric}: two rounds, in processes of their own, were beyond the limit.")
        elif verdict.confirmed is False:
            notes.append(f"{metric}: the first round was beyond the limit, the second was not.")
    return notes


def comparisons(found: Sequence[CellComparison]) -> Document:
    """Of stored results: a table a cell."""
    tables = []
    for cell in found:
        rows = tuple(
            (
                _NAMES[metric.change.metric],
                value(metric.change.metric, metric.change.baseline),
                value(metric.change.metric, metric.change.candidate),
                amount(metric.change),
                metric.word,
            )
            for metric in cell.metrics
        )
        notes = [f"{_NAMES[m.change.metric]}: {m.change.reason}." for m in cell.metrics if m.change.reason is not None]
        notes += [
            f"A latency of B exceeds one of A {m.effect_size * 100:.0f} times of 100 (50: no difference)."
            for m in cell.metrics
            if m.effect_size is not None
        ]
        notes += [f"Compared although they are of unlike {reason}." for reason in cell.unlike]
        tables.append(
            Table(cell.after.cell.label, ("Metric", "A", "B", "Change [95 %]", "Verdict"), rows, notes=tuple(notes))
        )
    words = [metric.word for cell in found for metric in cell.metrics]
    counts = ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words))
    headline = f"{len(found)} cell{'s' * (len(found) > 1)} compared: {counts}."
    note = "A and B were measured at different times: what changed on the machine meanwhile counts as theirs. What"
    note += " `mbbench calibrate` found of that is in the intervals; in `mbbench check` it drops out."
    return Document(headline, tuple(tables), (note,))


def calibrated(cell: Cell, noise: Noise) -> Table:
    """What a machine's noise floor is, metric by metric."""
    rows = tuple(
        (_NAMES[metric], *(f"{share * 100:.2f} %" for share in (floor.within, floor.between, floor.detectable)))
        for metric, floor in noise.floors.items()
    )
    return Table(
        f"{name(cell)}: {noise.rounds} rounds of {noise.seconds:g} s against itself",
        ("Metric", "In a gate", "Between processes", "Smallest change shown"),
        rows,
        notes=(
            "Standard deviations: of A/A changes in a round of `mbbench check`, and of the metric from process to"
            " process. The smallest change shown fails a gate 95 times of 100.",
        ),
    )


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
    if text in ("+0.0", "-0.0"):
        return "0.0"
    return text if abs(share) < 0.1 else f"{share * 100:+.0f}"
