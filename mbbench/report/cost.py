"""What a network costs, as tables: by layer type, by layer, and beside the paper."""

from __future__ import annotations

from collections.abc import Sequence

from mbbench import paper
from mbbench.cost import Cost, cost_of
from mbbench.report import units
from mbbench.report.content import Table
from mbbench.spec import ModelSpec


def tables(spec: ModelSpec, cost: Cost, *, layers: bool) -> list[Table]:
    found = [_totals(spec, cost), _by_type(spec, cost)]
    if layers:
        found.append(_by_layer(cost))
    comparisons = paper.compare(spec, cost)
    if comparisons:
        row = paper.row_of(spec)
        assert row is not None
        found.append(
            _comparison(f"Beside the paper's {row.name} (Table {', '.join(map(str, row.tables))})", comparisons)
        )
    return found


def paper_tables() -> list[Table]:
    """The paper's Tables 2 and 4 to 9, as counted here and as printed."""
    rows = []
    for row in paper.ROWS:
        if row.spec is None:
            continue
        name = f"{row.name} (Table {', '.join(map(str, row.tables))})"
        rows += [(name, *_figures(comparison)) for comparison in paper.compare(row.spec, cost_of(row.spec))]
    models = Table(
        "Tables 4 to 9: Mult-Adds and parameters, in millions",
        ("Model", "Quantity", "Paper", "Counted", "Agrees", "Why not"),
        tuple(rows),
        caption="Agrees: equal to the paper's figure when rounded or cut off at its last digit; the paper does either.",
    )
    shares = paper.compare_layer_types(cost_of(ModelSpec()))
    return [models, _comparison("Table 2: shares by layer type of 1.0 MobileNet-224, in percent", shares)]


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
    rows = tuple(_figures(comparison) for comparison in comparisons)
    return Table(title, ("Quantity", "Paper", "Counted", "Agrees", "Why not"), rows)


def _figures(comparison: paper.Comparison) -> tuple[str, str, str, str, str]:
    decimals = len(comparison.printed.partition(".")[2]) + 1
    difference = ""
    if not comparison.agrees:
        share = comparison.counted / float(comparison.printed) - 1
        difference = f"{share:+.2%}: {comparison.reason}"
    return (
        comparison.what,
        comparison.printed,
        f"{comparison.counted:.{decimals}f}",
        "yes" if comparison.agrees else "no",
        difference,
    )
