"""`mbbench run`: measure every cell in a child process and store its result before the next begins."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from time import monotonic
from types import MappingProxyType

from mbbench import doctor, store
from mbbench.analysis import requirements
from mbbench.analysis.executed import audit
from mbbench.analysis.layer_times import attribute
from mbbench.artifacts import bundle, prepare, reference
from mbbench.artifacts.bundle import Bundle
from mbbench.artifacts.export import Exported
from mbbench.artifacts.prepare import Ready, Unavailable
from mbbench.compress.search import Prepared
from mbbench.errors import EXIT_INTERRUPTED, BackendError, CellsFailedError, MbbenchError, RequirementError
from mbbench.events import Finished, Measuring, Notify, Working
from mbbench.machine import Machine, fingerprint, pick_cpus
from mbbench.measure import ceilings
from mbbench.measure.jobs import cell as cell_job
from mbbench.measure.process import run_in_child
from mbbench.models import normalization
from mbbench.models.cost import cost_of
from mbbench.result import (
    SCHEMA,
    Ceilings,
    ExecutedInfo,
    Failure,
    LayerTimes,
    Measured,
    QuantizationInfo,
    Result,
)
from mbbench.spec import Cell, RunSpec, content_key

_CPUS_ONLY = "ceilings are measured for CPUs only"
_NO_RESULTS: Mapping[str, Result] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class _Context:
    """What all cells of a run share. `ceilings`: those of the machine, or the reason they are unknown."""

    spec: RunSpec
    machine: Machine
    cpus: tuple[int, ...]
    ceilings: Ceilings | str
    artifact: Bundle | None
    notify: Notify
    evaluate: bool


@dataclass(frozen=True, slots=True)
class _Made:
    """A cell's artifact. `prepared`: how it was quantized, if it is INT8."""

    exported: Exported
    prepared: Prepared | None
    quantization: QuantizationInfo | None


def run(
    spec: RunSpec,
    results: Path,
    notify: Notify,
    known: Mapping[str, Result] = _NO_RESULTS,
    artifact: Bundle | None = None,
    *,
    evaluate: bool = True,
) -> Iterator[Result]:
    """Measure every cell and yield its result, stored in the file `results` before the next cell begins.

    Bad input raises `MbbenchError` before anything is measured. After that, a cell that fails yields a result with its
    failure, and the others continue. Ctrl-C stores what the current cell had measured, then raises
    `KeyboardInterrupt`. A cell whose id is in `known` yields that result, neither measured nor stored again. With
    `artifact` the subject's artifact is that file. Without `evaluate`, accuracy and the requirements are left out.
    """
    store.require_writable(results)
    machine = fingerprint()
    cpus = pick_cpus(spec.settings.threads)
    cells = prepare.prepare_all(spec, notify)
    if artifact is not None:
        cells = bundle.with_dialect(artifact, cells)
    context = _Context(spec, machine, cpus, _ceilings(spec, machine, cpus, cells, notify), artifact, notify, evaluate)
    durations_s: list[float] = []
    for index, item in enumerate(cells, 1):
        if isinstance(item, Unavailable):
            result = failed(spec, machine, item.cell, Failure.of(item.error))
        else:
            began = monotonic()
            made = _make(context, item)
            if isinstance(made, _Made):
                stored = known.get(identity(spec, machine, item.cell, item, made.exported.info.sha256))
                if stored is not None:
                    yield stored
                    continue
            left_s = fmean(durations_s) * (len(cells) - index + 1) if durations_s else None
            result = _measure(context, item, made, Measuring(item.cell, index, len(cells), left_s))
            durations_s.append(monotonic() - began)
        notify(Finished(result))
        try:
            store.append(results, result)
        except MbbenchError:
            yield result  # a result that the disk refuses still appears in the report
            raise
        yield result
        if result.failure is not None and result.failure.exit_code == EXIT_INTERRUPTED:
            raise KeyboardInterrupt


def verdict(results: Sequence[Result]) -> None:
    """Raise the error that the failures among `results` amount to; return if there is none."""
    failures = [result.failure for result in results if result.failure is not None]
    if not failures:
        return
    codes = {failure.exit_code for failure in failures}
    first = failures[0]
    if RequirementError.exit_code in codes:
        first = next(failure for failure in failures if failure.exit_code == RequirementError.exit_code)
        raise RequirementError(first.cause, first.remedy)
    if codes == {BackendError.exit_code} and len(failures) == len(results):
        raise BackendError(first.cause, first.remedy)
    raise CellsFailedError(f"{len(failures)} of {len(results)} cells failed: {first.cause}", first.remedy)


def failed(spec: RunSpec, machine: Machine, cell: Cell, failure: Failure) -> Result:
    """Return the result of a cell that was not measured."""
    return _result(spec, machine, cell, failure=failure)


def identity(spec: RunSpec, machine: Machine, cell: Cell, ready: Ready | None, sha256: str | None) -> str:
    """Return a key for what was measured, with what, on what and how; `sha256` is the artifact's."""
    return content_key(
        cell, spec.settings, _versions(ready), machine.id, None if ready is None else ready.data.info, sha256
    )


def _ceilings(
    spec: RunSpec, machine: Machine, cpus: tuple[int, ...], cells: Sequence[Ready | Unavailable], notify: Notify
) -> Ceilings | str:
    """Return the machine's ceilings, or the reason they are unknown; measure none if no cell runs on a CPU."""
    if not any(isinstance(item, Ready) and _on_cpu(item) for item in cells):
        return _CPUS_ONLY
    try:
        return ceilings.of(machine, cpus, spec.settings, notify)
    except MbbenchError as error:
        return str(error)


def _on_cpu(ready: Ready) -> bool:
    return ready.device.lower().startswith("cpu")


def _make(context: _Context, ready: Ready) -> _Made | Failure:
    """Return the cell's artifact; a failure of one cell must not end the others."""
    spec, notify = context.spec, context.notify
    try:
        prepared = prepare.quantize(spec, ready, notify)
        if context.artifact is not None and ready.cell.role == "subject":
            return _Made(context.artifact.exported, prepared, context.artifact.sidecar.quantization)
        exported = prepare.export(spec, ready, prepared, notify)
        return _Made(exported, prepared, None if prepared is None else prepared.info)
    except Exception as error:
        return _failure(error)


def _failure(error: Exception) -> Failure:
    """Return the failure to record; print the traceback of what is a fault of mbbench or of a library."""
    if not isinstance(error, MbbenchError):
        traceback.print_exception(error)
    return Failure.of(error)


def _measure(context: _Context, ready: Ready, made: _Made | Failure, announcement: Measuring) -> Result:
    """Return the result of one cell; every failure becomes part of it."""
    spec, machine = context.spec, context.machine
    roofs = context.ceilings if _on_cpu(ready) else _CPUS_ONLY
    if isinstance(made, Failure):
        return _result(spec, machine, ready.cell, failure=made, ready=ready, roofs=roofs)
    report = cell_job.Report(phase="export", measured=Measured(), reasons={})
    executed: ExecutedInfo | None = None
    layer_times: LayerTimes | None = None
    before = doctor.snapshot()
    try:
        job = _job(context, ready, made)
        context.notify(announcement)
        before = doctor.snapshot()
        report = run_in_child(job, cell_job.START)
        measured, layers = report.measured, cost_of(ready.cell.model).layers
        if measured.layers:
            executed = audit(measured.layers, layers)
        if measured.node_runs is not None:
            layer_times = attribute(measured.node_times, measured.node_runs, layers, spec.settings.batch)
    except Exception as error:
        report = replace(report, failure=_failure(error))
    failure = report.failure
    if failure is None and context.evaluate:
        failure = requirements.unmet(spec, ready.cell, made.quantization, executed, report.measured.accuracy)
    return _result(
        spec,
        machine,
        ready.cell,
        failure=failure,
        ready=ready,
        made=made,
        report=report,
        executed=executed,
        layer_times=layer_times,
        conditions=doctor.judge(machine, before, doctor.snapshot()),
        roofs=roofs,
    )


def _job(context: _Context, ready: Ready, made: _Made) -> cell_job.Job:
    """Return the measuring process's job; run the PyTorch reference for it. Raises `MbbenchError`."""
    spec, cell, data = context.spec, ready.cell, ready.data
    answers = reference.logits(
        ready.weights,
        data,
        lambda done, total: context.notify(Working("running the PyTorch reference", done, total)),
        None if context.evaluate else reference.first(data),
    )
    expected = answers
    if made.prepared is not None:
        expected = reference.simulated(made.prepared, ready.dialect, data, normalization(cell.model.family))
    reason_without_top1 = prepare.reason_without_top1(ready)
    return cell_job.Job(
        artifact=made.exported.artifact(cell.model, spec.settings.batch, cell.precision),
        backend=cell.backend,
        device=cell.device,
        settings=spec.settings,
        cpus=context.cpus,
        images=data.images,
        labels=data.labels if reason_without_top1 is None else None,
        reason_without_top1=reason_without_top1,
        reference=answers if context.evaluate else None,
        expected=expected,
        normalization=normalization(cell.model.family),
    )


def _result(
    spec: RunSpec,
    machine: Machine,
    cell: Cell,
    *,
    failure: Failure | None,
    ready: Ready | None = None,
    made: _Made | None = None,
    report: cell_job.Report | None = None,
    executed: ExecutedInfo | None = None,
    layer_times: LayerTimes | None = None,
    conditions: tuple[doctor.Check, ...] = (),
    roofs: Ceilings | str | None = None,
) -> Result:
    reasons = {} if report is None else dict(report.reasons)
    if isinstance(roofs, str):
        reasons["ceilings"] = roofs
    return Result(
        schema=SCHEMA,
        id=identity(spec, machine, cell, ready, None if made is None else made.exported.info.sha256),
        time_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        cell=cell,
        settings=spec.settings,
        versions=_versions(ready),
        machine=machine,
        conditions=conditions,
        weights=None if ready is None else ready.weights.info,
        data=None if ready is None else ready.data.info,
        cost=None if ready is None else cost_of(cell.model).info,
        artifact=None if made is None else made.exported.info,
        quantization=None if made is None else made.quantization,
        executed=executed,
        measured=Measured() if report is None else report.measured,
        failure=failure,
        reasons=reasons,
        layer_times=layer_times,
        ceilings=roofs if isinstance(roofs, Ceilings) else None,
    )


def _versions(ready: Ready | None) -> dict[str, str]:
    return prepare.versions([] if ready is None else [ready])
