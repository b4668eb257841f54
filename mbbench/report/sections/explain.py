"""The output of `mbbench explain`, as tables and as plain data."""

from __future__ import annotations

from collections.abc import Sequence

from mbbench.analysis.explain import Explanation
from mbbench.report import units
from mbbench.report.document import Table
from mbbench.report.names import Name, namer


def tables(explanations: Sequence[Explanation]) -> list[Table]:
    """Return one table for each explanation: the ratio of the medians, then the reasons."""
    name = namer([explanation.result for explanation in explanations])
    return [_table(explanation, name) for explanation in explanations]


def record(explanations: Sequence[Explanation]) -> list[dict[str, object]]:
    """Return one row of plain data for each explanation."""
    return [
        {"id": explanation.result.id, "ratio": explanation.ratio, "reasons": explanation.reasons}
        for explanation in explanations
    ]


def _table(explanation: Explanation, name: Name) -> Table:
    ratio = units.MISSING if explanation.ratio is None else f"{explanation.ratio:.2f}"
    rows = (("Median relative to fp32", ratio), *(("", reason) for reason in explanation.reasons))
    return Table(name(explanation.result), ("Quantity", "Value"), rows, numeric=False, header=False)
