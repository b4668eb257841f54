"""The command line: parse, call, render."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer
from rich.console import Console

from mbbench.errors import EXIT_INTERRUPTED, MbbenchError, UsageError
from mbbench.spec import Family, Variant

if TYPE_CHECKING:
    from mbbench.profile import Profile

RESULTS = "reports/results.jsonl"
_Number = TypeVar("_Number", int, float)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Compress image classifiers and measure what the compression buys on real hardware.",
)
Output = Literal["table", "json", "csv", "markdown"]
GateOutput = Literal["table", "json", "markdown", "junit"]
CompareOutput = Literal["table", "json", "markdown"]

ModelOption = Annotated[Family | None, typer.Option("--model", help="The network.", show_default="mobilenet_v1")]
ModelsOption = Annotated[
    str | None,
    typer.Option("--model", metavar="NAMES", help="mobilenet_v1, vgg16, googlenet.", show_default="mobilenet_v1"),
]
AlphaOption = Annotated[float | None, typer.Option("--alpha", help="MobileNet's width multiplier.", show_default="1.0")]
AlphasOption = Annotated[
    str | None,
    typer.Option(
        "--alpha", metavar="NUMBERS", help="MobileNet's width multipliers: 0.25,0.5 or 0.25-1+0.25.", show_default="1.0"
    ),
]
ResOption = Annotated[
    int | None, typer.Option("--res", help="Side of the square input, in pixels.", show_default="224")
]
SizesOption = Annotated[
    str | None,
    typer.Option(
        "--res", metavar="NUMBERS", help="Sides of the square input: 128,224 or 128-224+32.", show_default="224"
    ),
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
BackendOption = Annotated[
    str | None,
    typer.Option("--backend", metavar="NAMES", help="Names with commas, or all.", show_default="openvino"),
]
BatchOption = Annotated[int | None, typer.Option("--batch", help="Images in a timed call.", show_default="1")]
ImagesOption = Annotated[int | None, typer.Option("--images", help="Evaluate on so many.", show_default="all")]
WeightsOption = Annotated[
    str | None,
    typer.Option(
        "--weights",
        metavar="FILE|random|imagenet",
        help="FILE may be keras:FILE.h5, timm: or torchvision:.",
        show_default="train",
    ),
]
PrecisionOption = Annotated[
    str | None,
    typer.Option("--precision", metavar="NAMES", help="fp32, bf16, fp16, int8.", show_default="fp32"),
]
CalibrationOption = Annotated[
    str | None,
    typer.Option(
        "--calibration", metavar="DATA|random", help="To calibrate INT8 with.", show_default="DATA's training split"
    ),
]
ProfileOption = Annotated[str, typer.Option("--profile", help="A run profile: its name, or a .toml file.")]
MaxDropOption = Annotated[
    float | None, typer.Option("--max-drop", metavar="POINTS", help="Fail where more top-1 is lost against fp32.")
]
ControlOption = Annotated[
    bool | None, typer.Option("--accuracy-control", help="Keep layers in fp32 until --max-drop holds.")
]
EffectiveOption = Annotated[
    bool | None, typer.Option("--require-effective", help="Fail a cell that ran in another precision.")
]
ResultsOption = Annotated[Path, typer.Option("--results", help="Where results are appended.")]
PlanOption = Annotated[bool, typer.Option("--plan", help="Show the cells and an estimate; do nothing.")]
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
    alpha: AlphasOption = None,
    res: SizesOption = None,
    variant: VariantOption = None,
    backend: BackendOption = None,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    batch: BatchOption = None,
    data: DataOption = None,
    images: ImagesOption = None,
    weights: WeightsOption = None,
    precision: PrecisionOption = None,
    calibration: CalibrationOption = None,
    max_drop: MaxDropOption = None,
    accuracy_control: ControlOption = None,
    require_effective: EffectiveOption = None,
    sustain: Annotated[
        str | None, typer.Option("--sustain", metavar="TIME", help="Also run so long (10m): does it throttle?")
    ] = None,
    idle: Annotated[
        str | None, typer.Option("--idle", metavar="TIME", help="Also pause up to so long (100ms): waking up.")
    ] = None,
    baselines: Annotated[
        bool | None, typer.Option("--baselines/--no-baselines", help="Measure VGG16 and GoogLeNet too.")
    ] = None,
    profile: ProfileOption = "default",
    results: ResultsOption = Path(RESULTS),
    output: OutputOption = "table",
    plan: PlanOption = False,
) -> None:
    """Build, export, measure and report: the main job.

    Options win over the profile; the defaults shown are those of the profile `default`.
    """
    from mbbench import commands
    from mbbench.spec import seconds_of

    curves = {
        "sustain_s": None if sustain is None else seconds_of(sustain),
        "idle_ms": None if idle is None else seconds_of(idle) * 1e3,
    }
    chosen = _profile(
        profile,
        {"threads": threads, "batch": batch, **curves},
        model=_one(model),
        alpha=alpha,
        res=res,
        variant=variant,
        backend=backend,
        device=device,
        data=data,
        images=images,
        weights=weights,
        precision=precision,
        calibration=calibration,
        max_drop=max_drop,
        accuracy_control=accuracy_control,
        require_effective=require_effective,
        baselines=baselines,
    )
    commands.run(chosen, results, output, plan_only=plan)


@app.command()
def sweep(
    model: ModelsOption = None,
    alpha: AlphasOption = None,
    res: SizesOption = None,
    variant: VariantOption = None,
    backend: BackendOption = None,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    batch: BatchOption = None,
    data: DataOption = None,
    images: ImagesOption = None,
    weights: WeightsOption = None,
    precision: PrecisionOption = None,
    calibration: CalibrationOption = None,
    max_drop: MaxDropOption = None,
    accuracy_control: ControlOption = None,
    require_effective: EffectiveOption = None,
    profile: ProfileOption = "default",
    results: ResultsOption = Path(RESULTS),
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the sweep that was begun into --results.")
    ] = False,
    output: OutputOption = "table",
    plan: PlanOption = False,
) -> None:
    """Measure a grid of cells, but for those whose result is in --results already.

    After a crash `mbbench sweep --resume` takes no other options: it asks for what was asked for.
    """
    from mbbench import commands

    chosen = _profile(
        profile,
        {"threads": threads, "batch": batch},
        model=_names(model),
        alpha=alpha,
        res=res,
        variant=variant,
        backend=backend,
        device=device,
        data=data,
        images=images,
        weights=weights,
        precision=precision,
        calibration=calibration,
        max_drop=max_drop,
        accuracy_control=accuracy_control,
        require_effective=require_effective,
    )
    commands.sweep(chosen, results, output, plan_only=plan, resume=resume)


@app.command()
def keep(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where; what was kept there before goes.")],
    model: ModelOption = None,
    alpha: AlphasOption = None,
    res: SizesOption = None,
    variant: VariantOption = None,
    backend: BackendOption = None,
    device: DeviceOption = None,
    data: DataOption = None,
    weights: WeightsOption = None,
    precision: PrecisionOption = None,
    calibration: CalibrationOption = None,
    profile: ProfileOption = "default",
) -> None:
    """Keep the artifacts of some cells as the baseline of `mbbench check --baseline DIR`."""
    from mbbench import commands

    chosen = _profile(
        profile,
        {},
        model=_one(model),
        alpha=alpha,
        res=res,
        variant=variant,
        backend=backend,
        device=device,
        data=data,
        weights=weights,
        precision=precision,
        calibration=calibration,
        baselines=False,
    )
    commands.keep(chosen, folder)


@app.command()
def check(
    baseline: Annotated[
        Path | None, typer.Option("--baseline", metavar="DIR", help="What `mbbench keep` wrote.")
    ] = None,
    base_ref: Annotated[
        str | None, typer.Option("--base-ref", metavar="REF", help="Or a commit to build the baseline from.")
    ] = None,
    model: ModelOption = None,
    alpha: AlphasOption = None,
    res: SizesOption = None,
    variant: VariantOption = None,
    backend: BackendOption = None,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    batch: BatchOption = None,
    data: DataOption = None,
    images: ImagesOption = None,
    weights: WeightsOption = None,
    precision: PrecisionOption = None,
    calibration: CalibrationOption = None,
    profile: ProfileOption = "ci",
    fail_on: Annotated[
        list[str] | None,
        typer.Option(
            "--fail-on",
            metavar="METRIC:LIMIT",
            help="Repeat it for p50, p99, rss, size and top1.",
            show_default="p50:3% p99:10% rss:5% size:1% top1:-0.5pt",
        ),
    ] = None,
    seconds: Annotated[float, typer.Option("--seconds", help="To time a cell in; twice that if it fails.")] = 5.0,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 4 where a verdict is inconclusive.")] = False,
    export: Annotated[
        list[Path] | None, typer.Option("--export", metavar="FILE", help="Also write .md, .json or .xml (JUnit).")
    ] = None,
    output: Annotated[GateOutput, typer.Option("--output", "-o", help="Format of what goes to stdout.")] = "table",
) -> None:
    """Fail (exit 3) if a change made a model slower, bigger or less accurate than a baseline.

    Both are measured in alternation, in one run on one machine, so that the machine's speed drops out.
    """
    from mbbench import commands
    from mbbench.changes import DEFAULTS

    chosen = _profile(
        profile,
        {"threads": threads, "batch": batch},
        model=_one(model),
        alpha=alpha,
        res=res,
        variant=variant,
        backend=backend,
        device=device,
        data=data,
        images=images,
        weights=weights,
        precision=precision,
        calibration=calibration,
        baselines=False,
    )
    commands.check(
        chosen,
        folder=baseline,
        base_ref=base_ref,
        limits=fail_on or DEFAULTS,
        seconds=seconds,
        strict=strict,
        output=output,
        exports=export or (),
    )


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="Results that `mbbench run` wrote: before.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="After.")],
    margin: Annotated[
        list[str] | None,
        typer.Option(
            "--margin",
            metavar="METRIC:LIMIT",
            help="Within it two are the same.",
            show_default="p50:3% p99:10% rss:5% size:1% top1:-0.5pt",
        ),
    ] = None,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Compare unlike machines, runtimes or settings too.")
    ] = False,
    output: Annotated[CompareOutput, typer.Option("--output", "-o", help="Format of what goes to stdout.")] = "table",
) -> None:
    """Compare stored results, cell by cell: faster, slower, same or inconclusive.

    Two runs at different times meet different machines: for a gate take `mbbench check`, which alternates.
    """
    from mbbench import commands
    from mbbench.changes import DEFAULTS

    commands.compare(first, second, margin or DEFAULTS, output, anyway=anyway)


@app.command()
def calibrate(
    model: ModelOption = None,
    alpha: AlphasOption = None,
    res: SizesOption = None,
    backend: BackendOption = None,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    batch: BatchOption = None,
    precision: PrecisionOption = None,
    profile: ProfileOption = "ci",
    rounds: Annotated[int, typer.Option("--rounds", help="Comparisons of each cell with itself.")] = 20,
    seconds: Annotated[float, typer.Option("--seconds", help="Timing of a round, as `mbbench check` has it.")] = 5.0,
    output: OutputOption = "table",
) -> None:
    """Measure this machine's noise floor, and the smallest change that `mbbench check` can show here.

    `check` and `compare` use what is found. Weights are random: speed does not depend on them.
    """
    from mbbench import commands

    chosen = _profile(
        profile,
        {"threads": threads, "batch": batch},
        model=_one(model),
        alpha=alpha,
        res=res,
        backend=backend,
        device=device,
        precision=precision,
        weights="random",
        baselines=False,
    )
    commands.calibrate(chosen, rounds, seconds, output)


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

    wanted = override(Profile(), {}, {**_single(alpha, res), "variant": variant, "data": data})
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
    options = {**_single(alpha, res), "variant": variant, "data": data, "weights": weights}
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
def report(
    results: Annotated[list[Path], typer.Argument(metavar="RESULTS...", help="Files that `mbbench run` appended to.")],
    to: Annotated[
        list[Path],
        typer.Option("-o", "--to", metavar="FILE", help="Where: .html, .md, .csv, .json or .xml (JUnit). Repeat it."),
    ],
) -> None:
    """Write stored results as a report: one HTML file that needs no network, or text.

    Of each cell the newest result counts.
    """
    from mbbench import reporting

    reporting.report(results, to)


@app.command()
def show(
    results: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[RESULTS]...", help="Files that `mbbench run` appended to.", show_default=RESULTS),
    ] = None,
) -> None:
    """Show the report of stored results in the terminal."""
    from mbbench import reporting

    reporting.show(results or [Path(RESULTS)])


@app.command()
def choose(
    results: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[RESULTS]...", help="Files that `mbbench run` appended to.", show_default=RESULTS),
    ] = None,
    max_p99: Annotated[str | None, typer.Option("--max-p99", metavar="TIME", help="Of the latency: 10ms.")] = None,
    min_top1: Annotated[float | None, typer.Option("--min-top1", metavar="PERCENT", help="Of the accuracy.")] = None,
    max_rss: Annotated[str | None, typer.Option("--max-rss", metavar="SIZE", help="Of the process: 80MB.")] = None,
    max_size: Annotated[str | None, typer.Option("--max-size", metavar="SIZE", help="On disk: 5MB.")] = None,
    published: Annotated[
        bool, typer.Option("--published", help="Judge by the published ImageNet top-1, not by what was measured.")
    ] = False,
    output: OutputOption = "table",
) -> None:
    """Pick a cell that keeps within limits, and say what the others lost by; exit 5 if none does.

    The pick is the fastest (p99) of those whose top-1 cannot be told from the best within the limits.
    """
    from mbbench import commands
    from mbbench.choosing import Limits, bytes_of
    from mbbench.spec import seconds_of

    limits = Limits(
        max_p99_ms=None if max_p99 is None else seconds_of(max_p99) * 1e3,
        min_top1=None if min_top1 is None else min_top1 / 100,
        max_rss_bytes=None if max_rss is None else bytes_of(max_rss),
        max_size_bytes=None if max_size is None else bytes_of(max_size),
    )
    commands.choose(results or [Path(RESULTS)], limits, output, published=published)


@app.command()
def verify(
    page: Annotated[Path, typer.Argument(metavar="REPORT.html", help="What `mbbench report` wrote.")],
) -> None:
    """Recompute every figure and line of an HTML report from the records it carries; exit 5 if one differs."""
    from mbbench import reporting

    reporting.verify(page)


@app.command()
def explain(
    results: Annotated[Path, typer.Option("--results", help="What `mbbench run` appended to.")] = Path(RESULTS),
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


def _profile(name: str, settings: dict[str, Any], **options: Any) -> Profile:
    """The profile called `name` with the options in its place."""
    from mbbench.profile import load, override

    options |= {key: _names(options[key]) for key in ("backend", "precision")}
    options |= {"alpha": _numbers("--alpha", options["alpha"], float), "res": _numbers("--res", options["res"], int)}
    return override(load(name), settings, options)


def _numbers(option: str, text: str | None, kind: Callable[[str], _Number]) -> tuple[_Number, ...] | None:
    """`128,224`, or `128-224+32` for a range with a step."""
    try:
        return None if text is None else tuple(kind(one) for part in text.split(",") for one in _spread(part))
    except ValueError:
        example = "0.5,1.0 or 0.25-1+0.25" if kind is float else "128,224 or 128-224+32"
        raise UsageError(f"{option} {text} does not read as numbers", f"write them like {option} {example}") from None


def _spread(part: str) -> list[str]:
    match = re.fullmatch(r"([\d.]+)-([\d.]+)\+([\d.]+)", part.strip())
    if match is None:
        return [part]
    try:
        first, last, step = map(Decimal, match.groups())
        return [str(first + step * count) for count in range(int((last - first) / step) + 1)]
    except ArithmeticError as error:
        raise ValueError(part) from error


def _single(alpha: float | None, res: int | None) -> dict[str, Any]:
    """For what works on one network."""
    return {"alpha": None if alpha is None else (alpha,), "res": None if res is None else (res,)}


def _one(model: Family | None) -> tuple[Family, ...] | None:
    return None if model is None else (model,)


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
