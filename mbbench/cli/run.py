"""`mbbench run`, `sweep`, `worker` and `export`: the commands that measure cells or export their artifacts."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mbbench.cli import inputs, options, output
from mbbench.cli.interruption import interruption
from mbbench.cli.options import ACCURACY, ARTIFACT, DEFAULT_RESULTS, LOAD, NETWORK, TIMING
from mbbench.cli.progress import print_status, stderr_display
from mbbench.errors import UsageError
from mbbench.families import FILE_SUFFIX

if TYPE_CHECKING:
    from mbbench.events import Notify
    from mbbench.profile import Profile
    from mbbench.result import Result
    from mbbench.spec import Cell, RunSpec


@options.cell_options(
    "model", *NETWORK, *ARTIFACT, *TIMING, *LOAD, *ACCURACY, "sustain", "idle", "baselines", "against"
)
def run(
    profile: Profile,
    context: typer.Context,
    results: options.ResultsFile = Path(DEFAULT_RESULTS),
    artifact: Annotated[
        Path | None,
        typer.Option(
            "--artifact",
            metavar="FILE",
            help="File written by `mbbench export`, to measure; it sets the network, backend and precision.",
        ),
    ] = None,
    trust: Annotated[
        bool,
        typer.Option("--trust", help="Open --artifact even if it was changed, or is code built on another machine."),
    ] = False,
    format: options.Format = "table",
    plan: options.Plan = False,
) -> None:
    """Build networks, measure them on inference runtimes, and report the results.

    A cell is one network in one precision on one backend; lists of values make a grid of cells.
    Options override the profile; the defaults shown are those of the profile `default`.
    """
    from mbbench import plan as planning
    from mbbench import preflight
    from mbbench.artifacts import bundle
    from mbbench.run import raise_for_failures
    from mbbench.run import run as measure

    if trust and artifact is None:
        raise UsageError("--trust requires --artifact", "name the file with --artifact")
    exported = (
        None if artifact is None else bundle.read(artifact, trust=trust, images=not _names_data(context, profile))
    )
    if exported is not None:
        _refuse_contradictions(context, profile, exported.sidecar.cell, str(artifact))
        profile = bundle.profile_of(profile, exported.sidecar)
    network = None if exported is None else exported.sidecar.cell.model
    models = (network,) if network is not None and network.is_file else None
    spec = planning.plan(profile, list_unavailable=True, models=models)
    preflight.require_measurable(spec, results, own_images=exported is not None and exported.images is not None)
    if plan:
        _show_plan(spec, format)
        return
    others = ", or `mbbench sweep` with its networks to measure only the others" if len(spec.cells) > 1 else ""
    finished = _measure_and_report(
        spec,
        lambda notify: measure(spec, results, notify, artifact=exported),
        results,
        format,
        f"run the command again{others}",
    )
    raise_for_failures(finished, spec.optional_backends)


@options.cell_options("models", *NETWORK, *ARTIFACT, *TIMING, *LOAD, *ACCURACY)
def sweep(
    profile: Profile,
    results: options.ResultsFile = Path(DEFAULT_RESULTS),
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the last sweep into --results, with its cells and settings.")
    ] = False,
    cluster: Annotated[
        str | None,
        typer.Option(
            "--cluster",
            metavar="ADDRESS",
            help="Address of the Dask scheduler whose workers measure, e.g. tls://host:8786.",
        ),
    ] = None,
    predict: Annotated[
        int | None,
        typer.Option(
            "--predict",
            metavar="N",
            help="Measure only N MobileNetV1 of the grid on each backend, and predict the latency of the others.",
        ),
    ] = None,
    format: options.Format = "table",
    plan: options.Plan = False,
) -> None:
    """Measure a grid of cells, skipping those whose result is already in --results.

    After a crash, `mbbench sweep --resume` continues it. Predictions are shown, never stored.
    Options override the profile; the defaults shown are those of the profile `default`.
    """
    from mbbench import plan as planning
    from mbbench import preflight, store
    from mbbench import sweep as program
    from mbbench.cluster.connect import require_address
    from mbbench.profile import read_profile
    from mbbench.report.sections.grid import predicted_maps
    from mbbench.run import raise_for_failures

    if resume and (predict is not None or profile != read_profile("default")):
        raise UsageError(
            "--resume takes cells and settings from the sweep that it continues",
            "leave out all other options except --results, --cluster, --format and --plan",
        )
    if resume:
        spec = program.read_spec(results)
    else:
        spec = planning.group_by_artifact(planning.plan(profile, list_unavailable=True))
    if predict is not None and format not in ("table", "markdown"):
        raise UsageError(f"--predict has no figures in {format}", "leave out --format, or give --format markdown")
    grid = planning.grid_of(spec)
    if predict is not None:
        spec = planning.keep_spread(spec, predict)
    if cluster is None:
        preflight.require_measurable(spec, results)
    else:  # other machines measure
        require_address(cluster)
        store.require_writable(results)
        preflight.require_inputs(spec)
    if plan:
        _show_plan(spec, format)
        return
    words = ["mbbench", "sweep", "--resume", "--results", str(results)]
    words += [] if cluster is None else ["--cluster", cluster]
    go_on = f"go on with `{shlex.join(words)}`"
    finished = _measure_and_report(
        spec, lambda notify: program.sweep(spec, results, notify, cluster), results, format, go_on
    )
    if predict is not None:
        output.write_tables(predicted_maps(finished, grid), None, format)
    raise_for_failures(finished, spec.optional_backends, requirements_first=False)


def worker(
    scheduler: Annotated[
        str, typer.Argument(metavar="ADDRESS", help="Address of the Dask scheduler, e.g. tls://host:8786.")
    ],
    resources: Annotated[
        str | None,
        typer.Option("--resources", metavar="NAMES", help="Backends to offer, comma-separated.", show_default="all"),
    ] = None,
) -> None:
    """Offer this machine to `mbbench sweep --cluster ADDRESS`, until the scheduler closes.

    Anyone who can reach a scheduler can run code on its workers: use certificates (docs/cluster.md).
    """
    from mbbench import registry
    from mbbench.cluster.worker import serve

    backends = () if resources is None else options.split_names(resources)
    for name in backends:
        registry.require_known(name)
    serve(scheduler, backends)


@options.cell_options(
    "model", *NETWORK, "device", "data", "skip_broken", "weights", *inputs.OPTIONS, "precision", "calibration", "batch",
    "max_drop", "accuracy_control", baselines=False,
)  # fmt: skip
def export(
    profile: Profile,
    to: Annotated[str, typer.Option("--to", metavar="BACKEND", help="Backend that will open the file.")],
    file: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="File to write; FILE.json will describe it, FILE.npz hold test images.",
        ),
    ],
    compute_capability: Annotated[
        str | None,
        typer.Option(
            "--compute-capability",
            metavar="X.Y",
            help="Compute capability of the GPU to build for (e.g. 8.9), which need not be present.",
        ),
    ] = None,
) -> None:
    """Export one network as the file that a backend opens (ONNX, TensorRT engine, ...).

    The options must name a single network and precision. `mbbench run --artifact FILE` measures the file.
    """
    from mbbench import plan as planning
    from mbbench import preflight
    from mbbench.artifacts import bundle
    from mbbench.report import units

    output.require_target(file)
    spec = planning.plan(replace(profile, backend=(to,)))
    if compute_capability is None:
        preflight.require_backends(spec)
    preflight.require_inputs(spec)
    interruption.advise(f"{file} was not written; run the command again")
    with stderr_display() as display:
        sidecar = bundle.write(spec, file, compute_capability, display)
    artifact = sidecar.artifact
    print_status(f"{file} written: {sidecar.cell.label}, {artifact.format}, {units.megabytes(artifact.size_bytes)}")


def _names_data(context: typer.Context, profile: Profile) -> bool:
    """Return whether the options or the profile name test images, weights or preprocessing."""
    from mbbench.profile import Profile

    source = context.get_parameter_source("data")
    in_options = source is not None and source.name == "COMMANDLINE"
    named = any(getattr(profile, name) is not None for name in ("weights", *inputs.OPTIONS))
    return in_options or named or profile.data != Profile().data


def _refuse_contradictions(context: typer.Context, profile: Profile, cell: Cell, file: str) -> None:
    """Raise `UsageError` if an option names another network, backend or precision than the cell that `file` holds."""
    model = cell.model
    networks = tuple(Path(name).name.removesuffix(FILE_SUFFIX) for name in profile.model)
    for option, values, held in (
        ("model", networks, model.name or model.family),
        ("alpha", profile.alpha, model.alpha),
        ("res", profile.res, model.resolution),
        ("variant", (profile.variant,), model.variant),
        ("backend", profile.backend, cell.backend),
        ("precision", profile.precision, cell.precision),
    ):
        source = context.get_parameter_source(option)
        if source is not None and source.name == "COMMANDLINE" and values != (held,):
            text = ",".join(map(str, values))
            raise UsageError(
                f"--{option} contradicts {file}, which holds {held}: {text}", f"leave out --{option}, or export again"
            )


def _show_plan(spec: RunSpec, format: str) -> None:
    from mbbench.report.sections import plan

    output.write_tables([plan.table(spec)], spec, format)


def _measure_and_report(
    spec: RunSpec, measure: Callable[[Notify], Iterator[Result]], results: Path, format: str, go_on: str
) -> list[Result]:
    """Measure, report all finished results even if measuring is interrupted or fails, and return them.

    `go_on` says how the user continues after an interruption when there are results.
    """
    finished: list[Result] = []
    interruption.advise("nothing was measured; run the command again")
    try:
        with stderr_display(spec.optional_backends) as display:
            for result in measure(display):
                finished.append(result)
                interruption.advise(_kept(finished, len(spec.cells), results, go_on))
    finally:
        if finished:
            output.write(output.results_text(finished, format))
            print_status(f"{output.count_text(len(finished), 'result')} in {results}")
    return finished


def _kept(finished: Sequence[Result], cells: int, results: Path, go_on: str) -> str:
    """Return what a user reads after an interruption: how many results are in the file `results`, and how to go on."""
    in_part = sum(result.failure is not None and result.failure.is_interruption for result in finished)
    if len(finished) == cells and not in_part:
        return f"all {output.count_text(cells, 'result')} are kept in {results}"
    parts = [f"{len(finished) - in_part} of {output.count_text(cells, 'result')}"] if len(finished) > in_part else []
    parts += ["a part of the result in measurement"] if in_part else []
    return f"{' and '.join(parts)} {'is' if len(finished) == 1 else 'are'} kept in {results}; {go_on}"
