"""What a network costs, as tables: by layer type, by layer, and beside the paper."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from mbbench.models import paper
from mbbench.models.cost import Cost
from mbbench.report import units
from mbbench.report.document import Table
from mbbench.spec import ModelSpec

_AGREES = "* not the printed figure when rounded or cut off at its last digit (the paper does either)."


def tables(spec: ModelSpec, cost: Cost, *, layers: bool) -> list[Table]:
    found = [_totals(spec, cost), _by_type(spec, cost)]
    if layers:
        found.append(_by_layer(cost))
    row = paper.row_of(spec)
    if row is not None and (comparisons := paper.compare(spec, cost)):
        numbers = ", ".join(map(str, row.tables))
        title = f"Beside the paper's Table {numbers}: Mult-Adds and parameters, in millions"
        found.append(_comparison(title, comparisons))
    return found


def paper_tables(reproduction: paper.Reproduction) -> list[Table]:
    """The paper's Tables 2 and 4 to 9, as counted here and as printed."""
    return [
        _comparison(
            "Tables 4 to 9 (their numbers in brackets): Mult-Adds and parameters, in millions",
            reproduction.tables_4_to_9,
        ),
        _comparison("Table 2: shares by layer type of 1.0 MobileNet-224, in percent", reproduction.table_2),
    ]


def _totals(spec: ModelSpec, cost: Cost) -> Table:
    rows = (
        ("Mult-Adds", units.millions(cost.mult_adds)),
        (
            "Parameters",
            f"{units.millions(cost.parameters)} ({units.millions(cost.weights)} without biases and batch norm)",
        ),
        ("Weights in fp32", units.megabytes(cost.weight_bytes)),
        ("Activations at their peak", f"{units.megabytes(cost.activation_peak_bytes)} in fp32 at batch 1"),
    )
    return Table(f"{spec.label}, {spec.classes} classes", ("Quantity", "Value"), rows, numeric=False, header=False)


def _by_type(spec: ModelSpec, cost: Cost) -> Table:
    rows = tuple(
        (
            share.type,
            units.millions(share.mult_adds),
            f"{share.mult_adds_share:.2%}",
            units.millions(share.weights),
            f"{share.weights_share:.2%}",
        )
        for share in cost.by_type()
    )
    return Table("By layer type", ("Type", "Mult-Adds", "share", "Weights", "share"), rows)


def _by_layer(cost: Cost) -> Table:
    rows = tuple(
        (
            layer.name,
            layer.type,
            "x".join(map(str, layer.output_shape)),
            units.millions(layer.mult_adds),
            units.millions(layer.parameters),
        )
        for layer in cost.layers
    )
    return Table("By layer", ("Layer", "Type", "Output", "Mult-Adds", "Parameters"), rows)


def _comparison(title: str, comparisons: Sequence[paper.Comparison]) -> Table:
    """A row for each name, with Mult-Adds and parameters beside what is printed; the differences explained below."""
    rows = []
    for name, group in groupby(comparisons, key=lambda comparison: comparison.name):
        cells = [name]
        for figure in group:
            decimals = len(figure.printed.partition(".")[2]) + 1
            cells += [f"{figure.counted:.{decimals}f}{'' if figure.agrees else '*'}", figure.printed]
        rows.append(tuple(cells))
    reasons = [
        f"* {c.name}, {c.what}: {c.counted / float(c.printed) - 1:+.2%}. {c.reason}."
        for c in comparisons
        if not c.agrees
    ]
    columns = ("", "Mult-Adds", "paper", "Parameters", "paper")
    return Table(title, columns, tuple(rows), notes=(_AGREES, *reasons))
