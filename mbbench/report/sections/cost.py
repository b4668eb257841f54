"""The cost of a network, as tables: in total, by layer type, by layer, and compared with the paper."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from mbbench.models import paper
from mbbench.models.cost import Cost
from mbbench.report import units
from mbbench.report.document import Table
from mbbench.spec import ModelSpec

_AGREES = "* differs from the printed figure, both rounded and truncated to its last digit (the paper does either)."


def tables(spec: ModelSpec, cost: Cost, *, layers: bool) -> list[Table]:
    """Return the totals, the shares by layer type, every layer if `layers`, and the comparison with the paper."""
    result = [_totals(spec, cost), _by_type(cost)]
    if layers:
        result.append(_by_layer(cost))
    row = paper.printed_row(spec)
    if row is not None:
        numbers = ", ".join(map(str, row.tables))
        title = f"The paper's Table{'s' * (len(row.tables) > 1)} {numbers}: Mult-Adds and parameters, in millions"
        result.append(_comparison(title, paper.compare(spec, cost)))
    return result


def paper_tables(reproduction: paper.Reproduction) -> list[Table]:
    """Return the paper's Tables 4 to 9, 10, 3 and 2, as counted by mbbench and as printed."""
    return [
        _comparison(
            "Tables 4 to 9 (table numbers in brackets): Mult-Adds and parameters, in millions",
            reproduction.tables_4_to_9,
        ),
        _comparison(
            "Table 10 (Stanford Dogs, 120 classes): Mult-Adds and parameters, in millions", reproduction.table_10
        ),
        _comparison(
            "Table 3 (one 14x14x512 layer, each change on top of the last): Mult-Adds and parameters, in millions",
            reproduction.table_3,
        ),
        _comparison("Table 2: share of each layer type in 1.0 MobileNet-224, in percent", reproduction.table_2),
    ]


def _totals(spec: ModelSpec, cost: Cost) -> Table:
    rows = (
        ("Mult-Adds", units.millions(cost.mult_adds)),
        (
            "Parameters",
            f"{units.millions(cost.parameters)} ({units.millions(cost.weights)} without biases and batch norm)",
        ),
        ("Weights in fp32", units.megabytes(cost.weight_bytes)),
        ("Peak activation memory", f"{units.megabytes(cost.activation_peak_bytes)} in fp32 at batch 1"),
    )
    return Table(f"{spec.label}, {spec.classes} classes", ("Quantity", "Value"), rows, numeric=False, header=False)


def _by_type(cost: Cost) -> Table:
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
    """Return a row per network or layer type with the counted and the printed figures; notes explain differences."""
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
