"""`mbbench run`: measure every cell in a child process and store its result before the next begins."""

from __future__ import annotations

import traceback
from collections.abc import Collection, Iterator, Mapping, Sequence
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
from mbbench.compress.search import Quantization
from mbbench.errors import BackendError, CellsFailedError, Interrupted, MbbenchError, RequirementError
from mbbench.events import Finished, Measuring, Notify, Preparing
from mbbench.machine import Machine, fingerprint, pick_cpus
from mbbench.measure import ceilings
from mbbench.measure.jobs import cell as cell_job
from mbbench.measure.process import run_in_child
from mbbench.models.cost import cost_of
from mbbench.result import SCHEMA, Ceilings, ExecutedInfo, Failure, LayerTimes, Measured, QuantizationInfo, Result
from mbbench.spec import Cell, RunSpec, content_key

_CPUS_ONLY = "ceilings are measured for CPUs only"
_NO_RESULTS: Mapping[str, Result] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class _Context:
    """What the cells of a run have in common. `ceilings`: the machine's, or the reason they are unknown."""

    spec: RunSpec
    machine: Machine
    cpus: tuple[int, ...]
    ceilings: Ceilings | str
    artifact: Bundle | None
    notify: Notify
    evaluate: bool


@dataclass(frozen=True, slots=True)
class _CellArtifact:
    """A cell's artifact; `prepared` and `quantization` describe how an INT8 one was quantized.

    `logits`: the paths of PyTorch's logits and of those that parity expects. None: they are computed for the cell.
    """

    exported: Exported
    prepared: Quantization | None
    quantization: QuantizationInfo | None
    logits: tuple[Path, Path] | None = None


def run(
    spec: RunSpec,
    results: Path,
    notify: Notify,
    stored_results: Mapping[str, Result] = _NO_RESULTS,
    artifact: Bundle | None = None,
    *,
    evaluate: bool = True,
) -> Iterator[Result]:
    """Measure every cell and yield its result, stored in the file `results` before the next cell starts.

    Invalid input raises `MbbenchError` before anything is measured. After that, a cell that fails yields a result with
    its failure, and the run continues. An interruption stores what the current cell has measured, then raises
    `Interrupted`. A cell whose id is in `stored_results` yields that result; it is not measured or stored again.
    `artifact` is used as the subject's artifact instead of exporting one. With `evaluate=False`, accuracy is not
    measured and the requirements are not checked.
    """
    store.require_writable(results)
    machine = fingerprint()
    cpus = pick_cpus(spec.settings.threads)
    cells = prepare.prepare_all(spec, notify) if artifact is None else bundle.prepare_cells(artifact, spec, notify)
    context = _Context(spec, machine, cpus, _ceilings(spec, machine, cpus, cells, notify), artifact, notify, evaluate)
    durations_s: list[float] = []
    for index, item in enumerate(cells, 1):
        if isinstance(item, Unavailable):
            result = failed_result(spec, machine, item.cell, Failure.from_error(item.error))
        else:
            start_s = monotonic()
            cell_artifact = _make_artifact(context, item)
            if isinstance(cell_artifact, _CellArtifact):
                stored = stored_results.get(
                    result_id(spec, machine, item.cell, item, cell_artifact.exported.info.sha256)
                )
                if stored is not None:
                    yield stored
                    continue
            left_s = fmean(durations_s) * (len(cells) - index + 1) if durations_s else None
            result = _measure(context, item, cell_artifact, Measuring(item.cell, index, len(cells), left_s))
            durations_s.append(monotonic() - start_s)
        notify(Finished(result))
        try:
            store.append(results, result)
        except MbbenchError:
            yield result  # the report shows it even if it cannot be stored
            raise
        yield result
        if result.failure is not None and result.failure.is_interruption:
            raise Interrupted(result.failure.exit_code)


def raise_for_failures(
    results: Sequence[Result], optional_backends: Collection[str] = (), *, requirements_first: bool = True
) -> None:
    """Raise one error for the failures among `results`; return if there are none.

    What `optional_backends` do not support counts only if there is no other result. Raises `RequirementError` if a
    requirement is not met (without `requirements_first`, only if every cell failed so), `BackendError` if every cell
    failed for its backend, and `CellsFailedError` otherwise.
    """
    counted = [result for result in results if not is_unsupported(result, optional_backends)] or results
    failures = [result.failure for result in counted if result.failure is not None]
    if not failures:
        return
    first = failures[0]
    all_alike = len(failures) == len(counted) and len({failure.exit_code for failure in failures}) == 1
    unmet = [failure for failure in failures if failure.exit_code == RequirementError.exit_code]
    if unmet and (requirements_first or all_alike):
        raise RequirementError(unmet[0].cause, unmet[0].remedy)
    if all_alike and first.is_unsupported:
        raise BackendError(first.cause, first.remedy)
    raise CellsFailedError(f"{len(failures)} of {len(counted)} cells failed: {first.cause}", first.remedy)


def is_unsupported(result: Result, optional_backends: Collection[str]) -> bool:
    """Return whether one of `optional_backends` does not support the cell."""
    return result.failure is not None and result.failure.is_unsupported and result.cell.backend in optional_backends


def failed_result(spec: RunSpec, machine: Machine, cell: Cell, failure: Failure) -> Result:
    """Return the result of a cell that was not measured."""
    return _result(spec, machine, cell, failure=failure)


def result_id(spec: RunSpec, machine: Machine, cell: Cell, ready: Ready | None, sha256: str | None) -> str:
    """Return the id of the cell's result: a key of everything it depends on. `sha256` is the artifact's."""
    versions = prepare.versions([] if ready is None else [ready])
    data = None if ready is None else ready.data.info.key
    specialties = () if ready is None else ready.data.specialties(cell.model.family)
    return content_key(cell, spec.settings, versions, machine.id, data, sha256, *specialties)


def _ceilings(
    spec: RunSpec, machine: Machine, cpus: tuple[int, ...], cells: Sequence[Ready | Unavailable], notify: Notify
) -> Ceilings | str:
    """Return the machine's ceilings, or the reason they are unknown. Nothing is measured if no cell runs on a CPU."""
    if not any(isinstance(item, Ready) and item.on_cpu for item in cells):
        return _CPUS_ONLY
    try:
        return ceilings.machine_ceilings(machine, cpus, spec.settings, notify)
    except MbbenchError as error:
        return str(error)


def _make_artifact(context: _Context, ready: Ready) -> _CellArtifact | Failure:
    """Return the cell's artifact, or its failure, which must not end the run."""
    spec, notify = context.spec, context.notify
    try:
        file = context.artifact if ready.cell.role == "subject" else None
        if file is not None and (images := file.images) is not None:
            return _CellArtifact(file.exported, None, file.sidecar.quantization, (images.logits, images.expected))
        prepared = prepare.quantize(spec, ready, notify)
        if file is not None:
            return _CellArtifact(file.exported, prepared, file.sidecar.quantization)
        exported = prepare.export(spec, ready, prepared, notify)
        return _CellArtifact(exported, prepared, None if prepared is None else prepared.info)
    except Exception as error:
        return _failure(error)


def _failure(error: Exception) -> Failure:
    """Return the failure to record; print the traceback if it is a bug of mbbench or of a library."""
    if not isinstance(error, MbbenchError):
        traceback.print_exception(error)
    return Failure.from_error(error)


def _measure(context: _Context, ready: Ready, artifact: _CellArtifact | Failure, announcement: Measuring) -> Result:
    """Return the result of one cell, with its failure if it failed."""
    spec, machine = context.spec, context.machine
    roofs = context.ceilings if ready.on_cpu else _CPUS_ONLY
    if isinstance(artifact, Failure):
        return _result(spec, machine, ready.cell, failure=artifact, ready=ready, roofs=roofs)
    report = cell_job.Report(phase="export", measured=Measured(), reasons={})
    executed: ExecutedInfo | None = None
    layer_times: LayerTimes | None = None
    before = doctor.snapshot()
    try:
        job = _job(context, ready, artifact)
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
        failure = requirements.first_failure(
            spec, ready.cell, artifact.quantization, executed, report.measured.accuracy
        )
    return _result(
        spec,
        machine,
        ready.cell,
        failure=failure,
        ready=ready,
        artifact=artifact,
        report=report,
        executed=executed,
        layer_times=layer_times,
        conditions=doctor.judge(machine, before, doctor.snapshot(), report.throttled),
        roofs=roofs,
    )


def _job(context: _Context, ready: Ready, artifact: _CellArtifact) -> cell_job.Job:
    """Run the PyTorch reference and return the measuring process's job. Raises `MbbenchError`."""
    spec, cell, data = context.spec, ready.cell, ready.data
    fp32_logits, expected = artifact.logits or reference.expected_logits(
        ready.weights, data, artifact.prepared, ready.dialect,
        lambda done, total: context.notify(Preparing("running the PyTorch reference", done, total)),
        None if context.evaluate else reference.parity_shard(data),
    )  # fmt: skip
    reason_without_top1 = prepare.reason_without_top1(ready)
    return cell_job.Job(
        artifact=artifact.exported.artifact(cell.model, spec.settings.batch, cell.precision),
        backend=cell.backend,
        device=cell.device,
        settings=spec.settings,
        cpus=context.cpus,
        images=data.images,
        labels=data.labels if reason_without_top1 is None else None,
        reason_without_top1=reason_without_top1,
        reference=fp32_logits if context.evaluate else None,
        expected=expected,
        preprocessing=data.preprocessing_for(cell.model.family),
    )


def _result(
    spec: RunSpec,
    machine: Machine,
    cell: Cell,
    *,
    failure: Failure | None,
    ready: Ready | None = None,
    artifact: _CellArtifact | None = None,
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
        id=result_id(spec, machine, cell, ready, None if artifact is None else artifact.exported.info.sha256),
        time_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        cell=cell,
        settings=spec.settings,
        versions=prepare.versions([] if ready is None else [ready]),
        machine=machine,
        conditions=conditions,
        weights=None if ready is None else ready.weights.info,
        data=None if ready is None else ready.data.info,
        cost=None if ready is None else cost_of(cell.model).info,
        artifact=None if artifact is None else artifact.exported.info,
        quantization=None if artifact is None else artifact.quantization,
        executed=executed,
        measured=Measured() if report is None else report.measured,
        failure=failure,
        reasons=reasons,
        layer_times=layer_times,
        ceilings=roofs if isinstance(roofs, Ceilings) else None,
        preprocessing=None if ready is None else ready.data.special_preprocessing(cell.model.family),
        labels=None if ready is None else ready.data.labeling,
    )
