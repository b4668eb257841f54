"""The command line: parse, call, render."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from mbbench import options
from mbbench.errors import EXIT_INTERRUPTED, MbbenchError, UsageError
from mbbench.options import ACCURACY, ARTIFACT, LOAD, NETWORK, RESULTS, TIMING

if TYPE_CHECKING:
    from mbbench.profile import Profile

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Compress image classifiers and measure what the compression buys on real hardware.",
)
GateOutput = Literal["table", "json", "markdown", "junit"]
CompareOutput = Literal["table", "json", "markdown"]
_LIMITS = "p50:3% p99:10% rss:5% size:1% top1:-0.5pt"
_TO_STDOUT = typer.Option("--output", "-o", help="Format of what goes to stdout.")


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from importlib.metadata import version as version_of

        print(f"mbbench {version_of('mbbench')}")
        raise typer.Exit


@app.command()
@options.about_cells("model", *NETWORK, *ARTIFACT, *TIMING, *LOAD, *ACCURACY, "sustain", "idle", "baselines")
def run(
    profile: Profile,
    results: options.Results = Path(RESULTS),
    artifact: Annotated[
        Path | None,
        typer.Option("--artifact", metavar="FILE", help="Measure this file of `mbbench export`: it names the network."),
    ] = None,
    trust: Annotated[
        bool,
        typer.Option("--trust", help="Open --artifact though it was changed, or is code built elsewhere."),
    ] = False,
    output: options.Output = "table",
    plan: options.Plan = False,
) -> None:
    """Build, export, measure and report: the main job.

    Options win over the profile; the defaults shown are those of the profile `default`.
    """
    from mbbench import commands

    commands.run(profile, results, output, plan_only=plan, artifact=artifact, trust=trust)


@app.command()
@options.about_cells("models", *NETWORK, *ARTIFACT, *TIMING, *LOAD, *ACCURACY)
def sweep(
    profile: Profile,
    results: options.Results = Path(RESULTS),
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the sweep that was begun into --results.")
    ] = False,
    cluster: Annotated[
        str | None,
        typer.Option("--cluster", metavar="ADDRESS", help="Measure on the workers of this Dask scheduler."),
    ] = None,
    output: options.Output = "table",
    plan: options.Plan = False,
) -> None:
    """Measure a grid of cells, but for those whose result is in --results already.

    After a crash `mbbench sweep --resume` takes no other options: it asks for what was asked for.
    """
    from mbbench import commands

    commands.sweep(profile, results, output, plan_only=plan, resume=resume, cluster=cluster)


@app.command()
def worker(
    scheduler: Annotated[str, typer.Argument(metavar="ADDRESS", help="Of a Dask scheduler: tls://host:8786.")],
    resources: Annotated[
        str | None,
        typer.Option("--resources", metavar="NAMES", help="Backends to offer, with commas.", show_default="all"),
    ] = None,
) -> None:
    """Measure on this machine for `mbbench sweep --cluster ADDRESS`, until the scheduler closes.

    A scheduler runs code of whoever reaches it: give it certificates, as docs/cluster.md says.
    """
    from mbbench.cluster.worker import serve

    serve(scheduler, () if resources is None else resources.split(","))


@app.command()
@options.about_cells(
    "model", *NETWORK, "device", "data", "weights", "precision", "calibration", "batch", "max_drop", "accuracy_control",
    baselines=False,
)  # fmt: skip
def export(
    profile: Profile,
    to: Annotated[str, typer.Option("--to", metavar="BACKEND", help="Whose file to write.")],
    file: Annotated[Path, typer.Option("-o", "--file", metavar="FILE", help="Where; FILE.json will say what it is.")],
    compute_capability: Annotated[
        str | None,
        typer.Option("--compute-capability", metavar="X.Y", help="Build for this GPU (8.9), which need not be here."),
    ] = None,
) -> None:
    """Write what a backend opens: a TensorRT engine, else the model as it is exported.

    `mbbench run --artifact FILE` measures it.
    """
    from dataclasses import replace

    from mbbench import commands

    commands.export(replace(profile, backend=(to,)), file, compute_capability)


@app.command()
@options.about_cells("model", *NETWORK, *ARTIFACT, baselines=False)
def keep(
    profile: Profile,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where; what was kept there before goes.")],
) -> None:
    """Keep the artifacts of some cells as the baseline of `mbbench check --baseline DIR`."""
    from mbbench import commands

    commands.keep(profile, folder)


@app.command()
@options.about_cells("model", *NETWORK, *ARTIFACT, *TIMING, "images", profile="ci", baselines=False)
def check(
    profile: Profile,
    baseline: Annotated[
        Path | None, typer.Option("--baseline", metavar="DIR", help="What `mbbench keep` wrote.")
    ] = None,
    base_ref: Annotated[
        str | None, typer.Option("--base-ref", metavar="REF", help="Or a commit to build the baseline from.")
    ] = None,
    fail_on: Annotated[
        list[str] | None,
        typer.Option(
            "--fail-on",
            metavar="METRIC:LIMIT",
            help="Repeat it for p50, p99, rss, size and top1.",
            show_default=_LIMITS,
        ),
    ] = None,
    seconds: Annotated[float, typer.Option("--seconds", help="To time a cell in; twice that if it fails.")] = 5.0,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 4 where a verdict is inconclusive.")] = False,
    export: Annotated[
        list[Path] | None, typer.Option("--export", metavar="FILE", help="Also write .md, .json or .xml (JUnit).")
    ] = None,
    output: Annotated[GateOutput, _TO_STDOUT] = "table",
) -> None:
    """Fail (exit 3) if a change made a model slower, bigger or less accurate than a baseline.

    Both are measured in alternation, in one run on one machine, so that the machine's speed drops out.
    """
    from mbbench import commands
    from mbbench.changes import DEFAULTS

    commands.check(
        profile,
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
            show_default=_LIMITS,
        ),
    ] = None,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Compare unlike machines, runtimes or settings too.")
    ] = False,
    output: Annotated[CompareOutput, _TO_STDOUT] = "table",
) -> None:
    """Compare stored results, cell by cell: faster, slower, same or inconclusive.

    Two runs at different times meet different machines: for a gate take `mbbench check`, which alternates.
    """
    from mbbench import commands
    from mbbench.changes import DEFAULTS

    commands.compare(first, second, margin or DEFAULTS, output, anyway=anyway)


@app.command()
@options.about_cells(
    "model", "alpha", "res", "backend", "device", "precision", *TIMING, profile="ci", weights="random", baselines=False
)
def calibrate(
    profile: Profile,
    rounds: Annotated[int, typer.Option("--rounds", help="Comparisons of each cell with itself.")] = 20,
    seconds: Annotated[float, typer.Option("--seconds", help="Timing of a round, as `mbbench check` has it.")] = 5.0,
    output: options.Output = "table",
) -> None:
    """Measure this machine's noise floor, and the smallest change that `mbbench check` can show here.

    `check` and `compare` use what is found. Weights are random: speed does not depend on them.
    """
    from mbbench import commands

    commands.calibrate(profile, rounds, seconds, output)


@app.command()
def train(
    alpha: options.Alpha = None,
    res: options.Res = None,
    variant: options.PaperVariant = None,
    data: options.Data = None,
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
    model: options.Model = None,
    alpha: options.Alpha = None,
    res: options.Res = None,
    variant: options.PaperVariant = None,
    classes: Annotated[int, typer.Option("--classes", help="Classes of the classifier.")] = 1000,
    layers: Annotated[bool, typer.Option("--layers", help="Every layer, not only the layer types.")] = False,
    paper: Annotated[bool, typer.Option("--paper", help="All of the paper's tables, counted here.")] = False,
    output: options.Output = "table",
) -> None:
    """Count Mult-Adds, parameters, weights and activations, beside the paper's figures."""
    from mbbench import commands
    from mbbench.spec import ModelSpec

    given = _given(family=model, alpha=alpha, resolution=res, variant=variant)
    commands.cost(None if paper else ModelSpec(classes=classes, **given), output, layers=layers)


@app.command()
def compress(
    alpha: options.Alpha = None,
    res: options.Res = None,
    variant: options.PaperVariant = None,
    data: options.Data = None,
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
    device: options.Device = None,
    threads: options.Threads = None,
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
    place = {"backend": None if backend is None else (backend,), "device": device}
    network = {**_single(alpha, res), "variant": variant, "data": data, "weights": weights}
    learning.compress(
        override(Profile(), {"threads": threads}, network | place),
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
    results: options.Stored = None,
) -> None:
    """Show the report of stored results in the terminal."""
    from mbbench import reporting

    reporting.show(results or [Path(RESULTS)])


@app.command()
def choose(
    results: options.Stored = None,
    max_p99: Annotated[str | None, typer.Option("--max-p99", metavar="TIME", help="Of the latency: 10ms.")] = None,
    min_top1: Annotated[float | None, typer.Option("--min-top1", metavar="PERCENT", help="Of the accuracy.")] = None,
    max_rss: Annotated[str | None, typer.Option("--max-rss", metavar="SIZE", help="Of the process: 80MB.")] = None,
    max_size: Annotated[str | None, typer.Option("--max-size", metavar="SIZE", help="On disk: 5MB.")] = None,
    published: Annotated[
        bool, typer.Option("--published", help="Judge by the published ImageNet top-1, not by what was measured.")
    ] = False,
    output: options.Output = "table",
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
    output: options.Output = "table",
) -> None:
    """Say why a lower precision is faster here, or is not, from results in fp32 and in it."""
    from mbbench import commands

    commands.explain(results, output)


@app.command()
def backends(output: options.Output = "table") -> None:
    """List the backends: versions, devices, precisions, and why one cannot start."""
    from mbbench import commands

    commands.backends(output)


@app.command()
def doctor(output: options.Output = "table") -> None:
    """Say whether this machine is fit for measuring, and what to do; change nothing."""
    from mbbench import commands

    commands.doctor(output)


def _single(alpha: float | None, res: int | None) -> dict[str, Any]:
    """For what works on one network."""
    return {"alpha": None if alpha is None else (alpha,), "res": None if res is None else (res,)}


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
