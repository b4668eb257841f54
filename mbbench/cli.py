"""The command line: parse, call, render."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from mbbench.errors import EXIT_INTERRUPTED, MbbenchError, UsageError
from mbbench.spec import Family, Variant

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Compress image classifiers and measure what the compression buys on real hardware.",
)
Output = Literal["table", "json", "csv", "markdown"]

ModelOption = Annotated[Family | None, typer.Option("--model", help="The network.", show_default="mobilenet_v1")]
AlphaOption = Annotated[float | None, typer.Option("--alpha", help="MobileNet's width multiplier.", show_default="1.0")]
ResOption = Annotated[
    int | None, typer.Option("--res", help="Side of the square input, in pixels.", show_default="224")
]
VariantOption = Annotated[
    Variant | None, typer.Option("--variant", help="The paper's variants (Tables 4, 5).", show_default="standard")
]
DataOption = Annotated[
    str | None,
    typer.Option("--data", metavar="DATA", help="digits, fashion-mnist:DIR, or a folder.", show_default="digits"),
]
DeviceOption = Annotated[str | None, typer.Option("--device", help="See `mbbench backends`.", show_default="first")]
ThreadsOption = Annotated[int | None, typer.Option("--threads", help="Threads, each pinned.", show_default="1")]
OutputOption = Annotated[Output, typer.Option("--output", "-o", help="Format of what goes to stdout.")]


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from importlib.metadata import version as version_of

        print(f"mbbench {version_of('mbbench')}")
        raise typer.Exit


@app.command()
def run(
    model: ModelOption = None,
    alpha: AlphaOption = None,
    res: ResOption = None,
    variant: VariantOption = None,
    backend: Annotated[
        str | None,
        typer.Option("--backend", metavar="NAMES", help="Names with commas, or all.", show_default="openvino"),
    ] = None,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    batch: Annotated[int | None, typer.Option("--batch", help="Images in a timed call.", show_default="1")] = None,
    data: DataOption = None,
    images: Annotated[int | None, typer.Option("--images", help="Evaluate on so many.", show_default="all")] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights",
            metavar="FILE|random|imagenet",
            help="FILE may be keras:FILE.h5, timm: or torchvision:.",
            show_default="train",
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option("--precision", metavar="NAMES", help="fp32, bf16, fp16, int8.", show_default="fp32"),
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(
            "--calibration", metavar="DATA|random", help="To calibrate INT8 with.", show_default="DATA's training split"
        ),
    ] = None,
    max_drop: Annotated[
        float | None, typer.Option("--max-drop", metavar="POINTS", help="Fail where more top-1 is lost against fp32.")
    ] = None,
    accuracy_control: Annotated[
        bool | None, typer.Option("--accuracy-control", help="Keep layers in fp32 until --max-drop holds.")
    ] = None,
    require_effective: Annotated[
        bool | None, typer.Option("--require-effective", help="Fail a cell that ran in another precision.")
    ] = None,
    baselines: Annotated[
        bool | None, typer.Option("--baselines/--no-baselines", help="Measure VGG16 and GoogLeNet too.")
    ] = None,
    profile: Annotated[str, typer.Option("--profile", help="A run profile: its name, or a .toml file.")] = "default",
    results: Annotated[Path, typer.Option("--results", help="Where results are appended.")] = Path(
        "reports/results.jsonl"
    ),
    output: OutputOption = "table",
    plan: Annotated[bool, typer.Option("--plan", help="Show the cells and an estimate; do nothing.")] = False,
) -> None:
    """Build, export, measure and report: the main job.

    Options win over the profile; the defaults shown are those of the profile `default`.
    """
    from mbbench import commands
    from mbbench.profile import load, override

    chosen = override(
        load(profile),
        {"threads": threads, "batch": batch},
        {
            "model": model,
            "alpha": alpha,
            "res": res,
            "variant": variant,
            "backend": _names(backend),
            "device": device,
            "data": data,
            "images": images,
            "weights": weights,
            "precision": _names(precision),
            "calibration": calibration,
            "max_drop": max_drop,
            "accuracy_control": accuracy_control,
            "require_effective": require_effective,
            "baselines": baselines,
        },
    )
    commands.run(chosen, results, output, plan_only=plan)


@app.command()
def train(
    alpha: AlphaOption = None,
    res: ResOption = None,
    variant: VariantOption = None,
    data: DataOption = None,
    epochs: Annotated[int | None, typer.Option("--epochs", help="Passes over the data.", show_default="8")] = None,
    to: Annotated[Path | None, typer.Option("--to", help="Also copy the checkpoint here.")] = None,
) -> None:
    """Train MobileNetV1, or find what was trained so before, and print the checkpoint's path."""
    from mbbench import learning
    from mbbench.profile import Profile, override
    from mbbench.weights.recipe import Recipe

    wanted = override(Profile(), {}, {"alpha": alpha, "res": res, "variant": variant, "data": data})
    learning.train(wanted, Recipe(**_given(epochs=epochs)), to)


@app.command()
def cost(
    model: ModelOption = None,
    alpha: AlphaOption = None,
    res: ResOption = None,
    variant: VariantOption = None,
    classes: Annotated[int, typer.Option("--classes", help="Classes of the classifier.")] = 1000,
    layers: Annotated[bool, typer.Option("--layers", help="Every layer, not only the layer types.")] = False,
    paper: Annotated[bool, typer.Option("--paper", help="All of the paper's tables, counted here.")] = False,
    output: OutputOption = "table",
) -> None:
    """Count Mult-Adds, parameters, weights and activations, beside the paper's figures."""
    from mbbench import commands
    from mbbench.spec import ModelSpec

    given = _given(family=model, alpha=alpha, resolution=res, variant=variant)
    commands.cost(None if paper else ModelSpec(classes=classes, **given), output, layers=layers)


@app.command()
def compress(
    alpha: AlphaOption = None,
    res: ResOption = None,
    variant: VariantOption = None,
    data: DataOption = None,
    weights: Annotated[
        str | None, typer.Option("--weights", metavar="FILE", help="What to start from.", show_default="train")
    ] = None,
    prune: Annotated[
        float | None, typer.Option("--prune", metavar="PERCENT", help="Remove so much of the Mult-Adds.")
    ] = None,
    max_latency: Annotated[
        float | None, typer.Option("--max-latency", metavar="MS", help="Or as much as this median needs.")
    ] = None,
    backend: Annotated[
        str | None, typer.Option("--backend", help="Where that median is measured.", show_default="openvino")
    ] = None,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    teacher: Annotated[
        str | None, typer.Option("--teacher", metavar="FILE", help="A larger checkpoint to learn from.")
    ] = None,
    teacher_alpha: Annotated[float, typer.Option("--teacher-alpha", help="Its width multiplier.")] = 1.0,
    qat: Annotated[bool, typer.Option("--qat", help="Fine-tune as INT8 will compute, at the end.")] = False,
    epochs: Annotated[int, typer.Option("--epochs", help="Passes over the data to fine-tune.")] = 3,
    to: Annotated[Path | None, typer.Option("--to", help="Also copy the checkpoint here.")] = None,
) -> None:
    """Prune, distil and fine-tune a MobileNetV1, and print the checkpoint's path for --weights.

    Interrupted training goes on where it was. INT8 itself needs no command: `mbbench run --precision int8`.
    """
    from mbbench import learning
    from mbbench.profile import Profile, override

    if prune is not None and not 0 < prune < 100:
        raise UsageError(f"{prune:g} % of Mult-Adds cannot be removed", "give a percentage between 0 and 100")
    if max_latency is not None and not max_latency > 0:
        raise UsageError(f"a latency of {max_latency:g} ms cannot be met", "give milliseconds, more than 0")
    options = {"alpha": alpha, "res": res, "variant": variant, "data": data, "weights": weights}
    learning.compress(
        override(Profile(), {"threads": threads}, {**options, "backend": _names(backend), "device": device}),
        keep=None if prune is None else 1 - prune / 100,
        max_latency_ms=max_latency,
        teacher=teacher,
        teacher_alpha=teacher_alpha,
        qat=qat,
        epochs=epochs,
        to=to,
    )


@app.command()
def explain(
    results: Annotated[Path, typer.Option("--results", help="What `mbbench run` appended to.")] = Path(
        "reports/results.jsonl"
    ),
    output: OutputOption = "table",
) -> None:
    """Say why a lower precision is faster here, or is not, from results in fp32 and in it."""
    from mbbench import commands

    commands.explain(results, output)


@app.command()
def backends(output: OutputOption = "table") -> None:
    """List the backends: versions, devices, precisions, and why one cannot start."""
    from mbbench import commands

    commands.backends(output)


@app.command()
def doctor(output: OutputOption = "table") -> None:
    """Say whether this machine is fit for measuring, and what to do; change nothing."""
    from mbbench import commands

    commands.doctor(output)


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(name.strip() for name in text.split(","))


def _given(**options: object) -> dict[str, Any]:
    """The options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def main() -> None:
    """The entry point: one line for a user's mistake, and the documented exit code."""
    try:
        app(prog_name="mbbench")
    except MbbenchError as error:
        Console(stderr=True).print(f"error: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted", highlight=False)
        sys.exit(EXIT_INTERRUPTED)
