"""`mbbench run`: measures prepared cells in child processes, and stores a result of each before the next begins."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from time import monotonic
from types import MappingProxyType

from mbbench import audit, ceilings, doctor, exporting, layers, preparing, promises, reference, store
from mbbench.compress import search
from mbbench.cost import cost_of
from mbbench.errors import BackendError, CellsFailedError, MbbenchError, ParityError
from mbbench.events import Announce, Finished, Measuring, Notify, Working
from mbbench.export import Exported
from mbbench.exporting import Given
from mbbench.machine import Machine, fingerprint, pick_cpus
from mbbench.measure.process import measure_in_child
from mbbench.measure.worker import Job, Report
from mbbench.models import normalization
from mbbench.preparing import Failed, Ready
from mbbench.result import (
    SCHEMA,
    Ceilings,
    CostInfo,
    DataInfo,
    ExecutedInfo,
    Failure,
    LayerTimes,
    Measured,
    QuantizationInfo,
    Result,
)
from mbbench.spec import Cell, RunSpec, content_key

_CPUS_ONLY = "they are measured for CPUs only"
_NONE: Mapping[str, Result] = MappingProxyType({})


def run(
    spec: RunSpec,
    results: Path,
    notify: Notify,
    known: Mapping[str, Result] = _NONE,
    given: Given | None = None,
    *,
    evaluate: bool = True,
) -> Iterator[Result]:
    """Measure every cell, storing each result before the next begins.

    Bad input raises before anything is measured. After that a cell that fails becomes a result with its reason and the
    others go on. Ctrl-C stores what the current cell had measured, then raises `KeyboardInterrupt`. A cell whose id is
    in `known` comes as it was, neither measured nor stored again. The subject's artifact is `given`, if it is. Without
    `evaluate` accuracy is left out, and with it the promises that a cell is held to.
    """
    store.require_writable(results)
    machine = fingerprint()
    cpus = pick_cpus(spec.settings.threads)
    ready = preparing.prepare_all(spec, notify)
    if given is not None:
        ready = exporting.in_place(given, ready)
    roofs = _ceilings(spec, machine, cpus, ready, notify)
    took_s: list[float] = []
    for index, item in enumerate(ready, 1):
        if isinstance(item, Failed):
            result = failed(spec, machine, item.cell, item.failure)
        else:
            began = monotonic()
            made = _make(spec, item, notify, given)
            before = (
                None
                if isinstance(made, Failure)
                else known.get(identity(spec, machine, item.cell, item, made.exported.info.sha256))
            )
            if before is not None:
                yield before
                continue
            left_s = fmean(took_s) * (len(ready) - index + 1) if took_s else None
            announcement = Measuring(item.cell, index, len(ready), left_s)
            result = _measure(spec, machine, cpus, item, made, announcement, notify, evaluate=evaluate)
            result = _under(roofs if _on_cpu(item) else _CPUS_ONLY, result)
            took_s.append(monotonic() - began)
        notify(Finished(result))
        try:
            store.append(results, result)
        except MbbenchError:
            yield result  # what the disk refuses the report still shows
            raise
        yield result
        if result.failure is not None and result.failure.exit_code == 130:
            raise KeyboardInterrupt


def _ceilings(
    spec: RunSpec, machine: Machine, cpus: tuple[int, ...], ready: Sequence[Ready | Failed], announce: Announce
) -> Ceilings | str:
    """The machine's, or why they are not known; a run that needs none measures none."""
    if not any(isinstance(item, Ready) and _on_cpu(item) for item in ready):
        return _CPUS_ONLY
    try:
        return ceilings.of(machine, cpus, spec.settings, announce)
    except MbbenchError as error:
        return str(error)


def _on_cpu(ready: Ready) -> bool:
    return ready.device.lower().startswith("cpu")


def _under(roofs: Ceilings | str, result: Result) -> Result:
    if isinstance(roofs, Ceilings):
        return replace(result, ceilings=roofs)
    return replace(result, reasons={**result.reasons, "ceilings": roofs})


def verdict(results: list[Result]) -> None:
    """Raise what the failures among `results` amount to; return if there are none."""
    failures = [result.failure for result in results if result.failure is not None]
    if not failures:
        return
    codes = {failure.exit_code for failure in failures}
    first = failures[0]
    if ParityError.exit_code in codes:
        first = next(failure for failure in failures if failure.exit_code == ParityError.exit_code)
        raise ParityError(first.cause, first.remedy)
    if codes == {BackendError.exit_code} and len(failures) == len(results):
        raise BackendError(first.cause, first.remedy)
    raise CellsFailedError(f"{len(failures)} of {len(results)} cells failed: {first.cause}", first.remedy)


@dataclass(frozen=True, slots=True)
class _Made:
    exported: Exported
    prepared: search.Prepared | None


def _make(spec: RunSpec, ready: Ready, notify: Notify, given: Given | None) -> _Made | Failure:
    try:
        exported, prepared = preparing.make(spec, ready, notify)
        return _Made(given.exported if given is not None and ready.cell.role == "subject" else exported, prepared)
    except Exception as error:
        return _failure(error)


def _failure(error: Exception) -> Failure:
    """A fault of ours or of a library must not cost the cells that follow."""
    if not isinstance(error, MbbenchError):
        traceback.print_exception(error)
    return Failure.of(error)


def _measure(
    spec: RunSpec,
    machine: Machine,
    cpus: tuple[int, ...],
    ready: Ready,
    made: _Made | Failure,
    announcement: Measuring,
    notify: Notify,
    *,
    evaluate: bool,
) -> Result:
    """Compare and measure what was made. Every failure ends up in the result."""
    cell = ready.cell
    counted = cost_of(cell.model)
    if isinstance(made, Failure):
        return _result(spec, machine, cell, failure=made, ready=ready, cost=counted.info)
    exported, prepared = made.exported, made.prepared
    report = Report(phase="export", measured=Measured(), reasons={})
    executed: ExecutedInfo | None = None
    layer_times: LayerTimes | None = None
    before = doctor.snapshot()

    try:
        answers = reference.logits(
            ready.weights,
            ready.data,
            lambda done, total: notify(Working("running the PyTorch reference", done, total)),
            None if evaluate else reference.first(ready.data),
        )
        expected = answers
        if prepared is not None:
            expected = reference.simulated(prepared, ready.dialect, ready.data, normalization(cell.model.family))
        no_labels = preparing.no_labels(ready)
        notify(announcement)
        before = doctor.snapshot()
        report = measure_in_child(
            Job(
                artifact=exported.artifact(cell.model, spec.settings.batch, cell.precision),
                backend=cell.backend,
                device=cell.device,
                settings=spec.settings,
                cpus=cpus,
                images=ready.data.images,
                labels=ready.data.labels if no_labels is None else None,
                no_labels=no_labels,
                reference=answers if evaluate else None,
                expected=expected,
                normalization=normalization(cell.model.family),
            )
        )
        if report.measured.layers:
            executed = audit.audit(report.measured.layers, counted.layers)
        if (runs := report.measured.node_runs) is not None:
            layer_times = layers.attribute(report.measured.node_times, runs, counted.layers, spec.settings.batch)
    except Exception as error:
        report = replace(report, failure=_failure(error))
    result = _result(
        spec,
        machine,
        cell,
        failure=report.failure,
        ready=ready,
        exported=exported,
        quantization=None if prepared is None else prepared.info,
        executed=executed,
        cost=counted.info,
        report=report,
        layer_times=layer_times,
        conditions=doctor.judge(machine, before, doctor.snapshot()),
    )
    return promises.judge(spec, result) if evaluate else result


def _result(
    spec: RunSpec,
    machine: Machine,
    cell: Cell,
    *,
    failure: Failure | None,
    ready: Ready | None = None,
    exported: Exported | None = None,
    quantization: QuantizationInfo | None = None,
    executed: ExecutedInfo | None = None,
    cost: CostInfo | None = None,
    report: Report | None = None,
    layer_times: LayerTimes | None = None,
    conditions: tuple[doctor.Check, ...] = (),
) -> Result:
    return Result(
        schema=SCHEMA,
        id=identity(spec, machine, cell, ready, None if exported is None else exported.info.sha256),
        time_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        cell=cell,
        settings=spec.settings,
        versions=_versions(ready),
        machine=machine,
        conditions=conditions,
        weights=None if ready is None else ready.weights.info,
        data=_data_info(ready),
        cost=cost,
        artifact=None if exported is None else exported.info,
        quantization=quantization,
        executed=executed,
        measured=Measured() if report is None else report.measured,
        failure=failure,
        reasons={} if report is None else report.reasons,
        layer_times=layer_times,
    )


def failed(spec: RunSpec, machine: Machine, cell: Cell, failure: Failure) -> Result:
    """The row of a cell that did not come to be measured."""
    return _result(spec, machine, cell, failure=failure)


def identity(spec: RunSpec, machine: Machine, cell: Cell, ready: Ready | None, sha256: str | None) -> str:
    """What was measured, with what, on what, and how, as one key; `sha256` is the artifact's."""
    return content_key(cell, spec.settings, _versions(ready), machine.id, _data_info(ready), sha256)


def _versions(ready: Ready | None) -> dict[str, str]:
    return preparing.versions([] if ready is None else [ready])


def _data_info(ready: Ready | None) -> DataInfo | None:
    if ready is None:
        return None
    test = ready.data
    return DataInfo(
        name=test.name,
        images=test.count,
        classes=test.classes,
        fingerprint=test.fingerprint,
        preprocess=test.preprocess,
    )
