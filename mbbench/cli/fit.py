"""`mbbench fit`: the largest network within limits on this machine, found by measuring few."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mbbench.cli import limits, options, output, quantities
from mbbench.cli.interruption import interruption
from mbbench.cli.options import DEFAULT_RESULTS, TIMING
from mbbench.cli.progress import stderr_display
from mbbench.errors import BackendError, CellsFailedError, RequirementError, UsageError
from mbbench.spec.bounds import BOUNDS

if TYPE_CHECKING:
    from mbbench.analysis.choose import Limits
    from mbbench.events import Notify
    from mbbench.fit.measurement import Measurement
    from mbbench.fit.search import Fit, Measure
    from mbbench.profile import Profile
    from mbbench.result import Failure, Result
    from mbbench.spec import Cell, ModelSpec, RunSpec

_ALPHAS, _SIDES = "0.125-1+0.03125", "96-224+8"


@options.cell_options(
    "backend", "device", "data", "skip_broken", "precision", "calibration", *TIMING, "images", weights="random"
)
def fit(
    profile: Profile,
    context: typer.Context,
    max_p99: limits.MaxP99 = None,
    min_top1: limits.MinTop1 = None,
    max_rss: limits.MaxRss = None,
    max_added_rss: limits.MaxAddedRss = None,
    max_size: limits.MaxSize = None,
    alpha: Annotated[
        str, typer.Option("--alpha", metavar="NUMBERS", help="Width multipliers to search, a list or a range.")
    ] = _ALPHAS,
    res: Annotated[
        str, typer.Option("--res", metavar="NUMBERS", help="Input sides to search, a list or a range.")
    ] = _SIDES,
    max_cells: Annotated[
        int, typer.Option("--max-cells", help="Most networks to measure on each backend in each precision.")
    ] = 12,
    results: options.ResultsFile = Path(DEFAULT_RESULTS),
    format: options.Format = "table",
) -> None:
    """Find the largest MobileNetV1 within limits, measuring few networks and predicting the others.

    Weights are random, and top-1 is that published for ImageNet.
    With --data, measured networks are trained on DATA, and top-1 is measured.
    Results in --results are used: repeat an interrupted search to continue it.
    Exit 5 if no network is within the limits.
    """
    from mbbench import plan as planning
    from mbbench import preflight
    from mbbench.report.sections import fit as section

    BOUNDS["max_cells"].require(max_cells)
    allowed = limits.parse_limits(max_p99, min_top1, max_rss, max_added_rss, max_size)
    costs = (allowed.max_p99_ms, allowed.max_rss_bytes, allowed.max_added_rss_bytes, allowed.max_size_bytes)
    if all(cost is None for cost in costs):
        raise UsageError("no cost is limited", "add --max-p99, --max-size, --max-rss or --max-added-rss")
    profile = replace(
        profile,
        weights=None if _names_data(context, profile) else "random",
        alpha=quantities.parse_numbers("--alpha", float, alpha),
        res=quantities.parse_numbers("--res", int, res),
    )
    if any((model.family, model.variant) != ("mobilenet_v1", "standard") for model in profile.models):
        raise UsageError("fit searches the standard MobileNetV1 alone", "leave model and variant out of the profile")
    spec = planning.plan(replace(profile, alpha=profile.alpha[:1], res=profile.res[:1]), list_unavailable=True)
    largest = max(profile.models, key=lambda model: model.alpha * model.resolution**2)
    preflight.require_measurable(
        replace(spec, cells=tuple(replace(cell, model=largest) for cell in spec.cells)), results
    )
    fits = _search_all(spec, profile.models, allowed, results, max_cells)
    document = section.fit_document(fits, allowed)
    if format in ("json", "csv"):
        output.write_tables(document.tables, section.record(fits), format)
    else:
        output.write(output.document_text(document, format))
    _raise_for_failures(fits, spec.optional_backends)


def _names_data(context: typer.Context, profile: Profile) -> bool:
    """Return whether the options or the profile name a data set."""
    from mbbench.profile import Profile

    source = context.get_parameter_source("data")
    return (source is not None and source.name == "COMMANDLINE") or profile.data != Profile().data


def _search_all(
    spec: RunSpec, models: Sequence[ModelSpec], allowed: Limits, results: Path, max_cells: int
) -> dict[Cell, Fit]:
    """Return the outcome in the setup of each cell of `spec`, one after another."""
    from mbbench.fit.search import Fit, search
    from mbbench.result import Failure

    fits = {}
    interruption.advise(f"measured networks are kept in {results}; run the command again to go on")
    with stderr_display(spec.optional_backends) as display:
        for cell in spec.cells:
            setup = replace(spec, cells=(cell,))
            measure = _measuring(setup, results, display)
            try:
                known = _reusable(setup, models, results, display)
                fits[cell] = search(models, allowed, measure, known, precision=cell.precision, max_cells=max_cells)
            except BackendError as error:
                fits[cell] = Fit((), (), None, None, 0, Failure.from_error(error))
    return fits


def _measuring(spec: RunSpec, results: Path, notify: Notify) -> Measure:
    """Return a function that measures a network in the setup of the only cell of `spec` and stores the result."""
    from mbbench.fit.measurement import measurement_of
    from mbbench.run import run

    def measure(model: ModelSpec) -> Measurement | Failure:
        (result,) = run(replace(spec, cells=(replace(spec.cells[0], model=model),)), results, notify)
        return result.failure or measurement_of(result)

    return measure


def _reusable(spec: RunSpec, models: Sequence[ModelSpec], results: Path, notify: Notify) -> list[Measurement]:
    """Return what is stored of `models` in the setup of the only cell of `spec`: what `run` would repeat."""
    from mbbench import store
    from mbbench.artifacts import prepare
    from mbbench.artifacts.prepare import Ready
    from mbbench.events import Stated
    from mbbench.fit.measurement import measurement_of
    from mbbench.machine import fingerprint
    from mbbench.run import result_id

    store.require_writable(results)
    machine, (cell,) = fingerprint(), spec.cells
    stored: dict[Cell, list[Result]] = {}  # of other devices and versions too
    for result in store.load(results, missing_ok=True).results(lambda text: notify(Stated(text)), samples=False):
        model = replace(result.cell.model, classes=models[0].classes)
        same_setup = replace(result.cell, model=model, device="") == replace(cell, model=model, device="")
        same_settings = (result.settings, result.machine.id) == (spec.settings, machine.id)
        if result.failure is None and same_setup and same_settings and model in models:
            stored.setdefault(replace(cell, model=model), []).append(result)
    if not stored:
        return []
    prepared = prepare.prepare_all(replace(spec, cells=tuple(stored)), notify)
    reusable = {
        ready.cell: result
        for candidates, ready in zip(stored.values(), prepared, strict=True)
        if isinstance(ready, Ready)
        for result in candidates
        if result.artifact is not None
        and result_id(spec, machine, ready.cell, ready, result.artifact.sha256) == result.id
    }
    return [measurement_of(result) for result in reusable.values()]


def _raise_for_failures(fits: Mapping[Cell, Fit], optional_backends: Sequence[str]) -> None:
    """Raise for a setup that failed, unless only `all` named its backend, and if no network fits."""
    failures = [(cell, fit.failure) for cell, fit in fits.items() if fit.failure is not None]
    counted = [
        (cell, failure)
        for cell, failure in failures
        if len(failures) == len(fits) or not (failure.is_unsupported and cell.backend in optional_backends)
    ]
    if counted:
        cell, failure = counted[0]
        none_left = len(failures) == len(fits) and failure.is_unsupported
        error = BackendError if none_left else CellsFailedError
        raise error(f"{cell.backend} in {cell.precision}: {failure.cause}", failure.remedy)
    if all(fit.pick is None for fit in fits.values()):
        raise RequirementError("no network is within the limits", "relax a limit, or give smaller --alpha and --res")
