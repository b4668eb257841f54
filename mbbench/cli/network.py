"""`mbbench cost`: a network's Mult-Adds, parameters and activations, counted without running it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mbbench.cli import options, output
from mbbench.errors import UsageError
from mbbench.families import FAMILIES, FILE_SUFFIX, family_info
from mbbench.spec import ModelSpec


def cost(
    file: Annotated[Path | None, typer.Argument(metavar="FILE.onnx", help="ONNX file to count.")] = None,
    model: options.Model = None,
    alpha: options.Alpha = None,
    res: options.Res = None,
    variant: options.NetworkVariant = None,
    classes: Annotated[int | None, typer.Option("--classes", help="Number of classes.", show_default="1000")] = None,
    layers: Annotated[bool, typer.Option("--layers", help="Also list every layer.")] = False,
    paper: Annotated[
        bool, typer.Option("--paper", help="Count all networks in the paper's tables instead of one.")
    ] = False,
    format: options.Format = "table",
) -> None:
    """Count Mult-Adds, parameters and activations, and compare them with the paper's."""
    from mbbench.models import files
    from mbbench.models.cost import cost_of
    from mbbench.models.paper import reproduce
    from mbbench.report.sections import cost as section

    if paper:
        reproduction = reproduce()
        output.write_tables(section.paper_tables(reproduction), reproduction, format)
        return
    if model is not None and model.endswith(FILE_SUFFIX):
        if file is not None:
            raise UsageError(f"two files to count: {file} and {model}", "give one of them")
        file, model = Path(model), None
    if file is not None:
        if any(option is not None for option in (model, alpha, variant, classes)):
            raise UsageError(
                f"{file} has its own width and classes", "leave out --model, --alpha, --variant and --classes"
            )
        spec, counted = files.count(file, res)
        output.write_tables(section.tables(spec, counted, layers=layers), {"spec": spec, "cost": counted}, format)
        return
    fields: dict[str, Any] = {
        "family": model, "alpha": alpha, "resolution": res, "variant": variant, "classes": classes
    }  # fmt: skip
    fields = {name: value for name, value in fields.items() if value is not None}
    if model is not None:
        if model not in FAMILIES:
            raise UsageError(
                f"not a built-in network: {model}",
                f"choose one of {', '.join(FAMILIES)}, or give an ONNX file (`mbbench export` writes one)",
            )
        fields = {"resolution": family_info(model).resolution} | fields
    spec = ModelSpec(**fields)
    cost = cost_of(spec)
    output.write_tables(section.tables(spec, cost, layers=layers), {"spec": spec, "cost": cost}, format)
