"""`mbbench run`, `sweep`, `worker` and `export`: the commands that measure or make cells."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mbbench.cli import options, output
from mbbench.cli.options import ACCURACY, ARTIFACT, LOAD, NETWORK, RESULTS, TIMING
from mbbench.cli.progress import display, tell
from mbbench.errors import UsageError

if TYPE_CHECKING:
    from mbbench.events import Notify
    from mbbench.profile import Profile
    from mbbench.result import Result
    from mbbench.spec import RunSpec


@options.about_cells("model", *NETWORK, *ARTIFACT, *TIMING, *LOAD, *ACCURACY, "sustain", "idle", "baselines")
def run(
    profile: Profile,
    results: options.Results = Path(RESULTS),
    artifact: Annotated[
        Path | None,
        typer.Option("--artifact", metavar="FILE", help="File of `mbbench export` to measure; it names the network."),
    ] = None,
    trust: Annotated[
        bool,
        typer.Option("--trust", help="Open --artifact even if it was changed, or is code built elsewhere."),
    ] = False,
    format: options.Format = "table",
    plan: options.Plan = False,
) -> None:
    """Build, export, measure and report: the main job.

    Options win over the profile; the defaults shown are those of the profile `default`.
    """
    from mbbench import plan as planning
    from mbbench.artifacts import bundle
    from mbbench.run import run as measure

    if trust and artifact is None:
        raise UsageError("--trust requires --artifact", "name the file with --artifact")
    measured_file = None if artifact is None else bundle.read(artifact, trust=trust)
    if measured_file is not None:
        profile = bundle.profile_of(profile, measured_file.sidecar)
    spec = planning.plan(profile)
    if plan:
        _show_plan(spec, format)
        return
    _report(lambda notify: measure(spec, results, notify, artifact=measured_file), results, format)


@options.about_cells("models", *NETWORK, *ARTIFACT, *TIMING, *LOAD, *ACCURACY)
def sweep(
    profile: Profile,
    results: options.Results = Path(RESULTS),
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the sweep that was started into --results.")
    ] = False,
    cluster: Annotated[
        str | None,
        typer.Option("--cluster", metavar="ADDRESS", help="Measure on the workers of this Dask scheduler."),
    ] = None,
    format: options.Format = "table",
    plan: options.Plan = False,
) -> None:
    """Measure a grid of cells, except those whose result is already in --results.

    After a crash, `mbbench sweep --resume` continues; it takes no other options except --results.
    """
    from mbbench import plan as planning
    from mbbench import sweep as program
    from mbbench.profile import load

    if resume and profile != load("default"):
        raise UsageError("--resume repeats the options of the sweep it continues", "give it --results alone")
    spec = program.resumed(results) if resume else planning.grouped(planning.plan(profile))
    if plan:
        _show_plan(spec, format)
        return
    _report(lambda notify: program.sweep(spec, results, notify, cluster), results, format)


def worker(
    scheduler: Annotated[
        str, typer.Argument(metavar="ADDRESS", help="Address of the Dask scheduler: tls://host:8786.")
    ],
    resources: Annotated[
        str | None,
        typer.Option("--resources", metavar="NAMES", help="Backends to offer, comma-separated.", show_default="all"),
    ] = None,
) -> None:
    """Measure on this machine for `mbbench sweep --cluster ADDRESS`, until the scheduler closes.

    A scheduler runs the code of everyone who can reach it: give it certificates, as docs/cluster.md explains.
    """
    from mbbench.cluster.worker import serve

    serve(scheduler, () if resources is None else resources.split(","))


@options.about_cells(
    "model", *NETWORK, "device", "data", "weights", "precision", "calibration", "batch", "max_drop", "accuracy_control",
    baselines=False,
)  # fmt: skip
def export(
    profile: Profile,
    to: Annotated[str, typer.Option("--to", metavar="BACKEND", help="Backend that will open the file.")],
    file: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="File to write, next to FILE.json.")],
    compute_capability: Annotated[
        str | None,
        typer.Option(
            "--compute-capability",
            metavar="X.Y",
            help="Build for a GPU of this compute capability (8.9), even if absent.",
        ),
    ] = None,
) -> None:
    """Write the file that a backend opens: a TensorRT engine, or the exported or converted model.

    FILE.json describes it, and `mbbench run --artifact FILE` measures it.
    """
    from mbbench import plan as planning
    from mbbench.artifacts import bundle
    from mbbench.report import units

    spec = planning.plan(replace(profile, backend=(to,)))
    with display() as show:
        sidecar = bundle.write(spec, file, compute_capability, show)
    artifact = sidecar.artifact
    tell(f"{file} written: {sidecar.cell.label}, {artifact.format}, {units.megabytes(artifact.size_bytes)}")


def _show_plan(spec: RunSpec, format: str) -> None:
    from mbbench.report.sections import plan

    output.write_tables([plan.table(spec)], spec, format)


def _report(measure: Callable[[Notify], Iterator[Result]], results: Path, format: str) -> None:
    """Write a report of what `measure` yields, however it ends, and raise what the failures amount to."""
    from mbbench.run import verdict

    finished = []
    try:
        with display() as show:
            for result in measure(show):
                finished.append(result)
    finally:
        if finished:
            output.write(output.results_text(finished, format))
            tell(f"{len(finished)} result{'s' * (len(finished) > 1)} in {results}")
    verdict(finished)
