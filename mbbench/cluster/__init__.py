"""A sweep over several machines on Dask.distributed: the client's side.

A machine measures one cell at a time: a worker has one thread, and workers on the same machine share a lock. Networks
are trained on any free machine, and their checkpoints are sent to the machines that measure them. Every cell is
measured once on each kind of machine that offers its backend and device. If several workers of a kind do, and there are
enough test images, they evaluate its accuracy in shards, on the artifact that was measured. If a worker dies, another
one takes over its task; if several die with the same task, its cell fails and keeps what was measured before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from mbbench import run, store
from mbbench.cluster import connect, worker
from mbbench.cluster.worker import Capabilities, CellOutcome, resource_name
from mbbench.errors import BackendError, CellsFailedError, UsageError
from mbbench.events import Finished, Notify, Preparing
from mbbench.machine import Machine
from mbbench.result import Failure, Measured, Result
from mbbench.spec import Cell, RunSpec

if TYPE_CHECKING:
    from distributed import Client, Future

    from mbbench.cluster.parcel import Parcel

_HIGH_PRIORITY = 1  # above measuring: for tasks that other tasks wait for


@dataclass(frozen=True, slots=True)
class Kind:
    """The machines with one fingerprint. `locks`: for every target, the locks of the workers that offer it."""

    machine: Machine
    locks: Mapping[str, frozenset[str]]


@dataclass(frozen=True, slots=True)
class _Task:
    """What a future computes: the outcome of a cell, or the accuracy to add to its result `measured`."""

    kind: Kind
    cell: Cell
    checkpoint: Future[Parcel] | None
    measured: Result | None = None


def sweep(
    spec: RunSpec, results: Path, notify: Notify, known: Mapping[str, Result], scheduler: str
) -> Iterator[Result]:
    """Yield a result for every cell and kind of machine as it arrives, after storing it in the file `results`.

    A result whose id is in `known` is yielded from there and not stored again. Raises `UsageError` if no scheduler
    answers or it has no workers, `BackendError` if no worker can measure any of the cells.
    """
    connect.require_distributed(scheduler, "client")
    from distributed import Client, as_completed

    try:
        client = Client(scheduler, timeout=connect.TIMEOUT_S, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, TimeoutError) as error:
        raise connect.unreachable_error(scheduler) from error
    with client:
        kinds = group_by_kind(client.run(worker.capabilities_of).values())
        if not kinds:
            raise UsageError("the cluster has no workers", "start `mbbench worker ADDRESS` on every machine")
        tasks = _submit_cells(client, spec, known, kinds)
        for result in _results_without_host(spec, kinds):
            notify(Finished(result))
            store.append(results, result)
            yield result
        done, total = 0, len(tasks)
        finished = as_completed(list(tasks), loop=client.loop)  # type: ignore[no-untyped-call]
        for future in finished:
            task = tasks.pop(future)
            outcome = _outcome(spec, task, future)
            if outcome.pending is not None:
                joined = _submit_shards(client, spec, task, future, outcome)
                tasks[joined] = replace(task, measured=outcome.result)
                finished.add(joined)  # type: ignore[no-untyped-call]
                continue
            result = outcome.result
            if result.id in known:
                result = known[result.id]
            else:
                notify(Finished(result))
                store.append(results, result)
            done += 1
            notify(Preparing("measuring on the cluster", done, total))
            yield result


def group_by_kind(workers: Iterable[Capabilities]) -> list[Kind]:
    """Return the kinds of machines among `workers`, each with all that its workers offer."""
    kinds: dict[str, Kind] = {}
    for offered in workers:
        kind = kinds.get(offered.machine.id, Kind(offered.machine, {}))
        added = {target: kind.locks.get(target, frozenset()) | {offered.lock} for target in offered.targets}
        kinds[offered.machine.id] = Kind(offered.machine, {**kind.locks, **added})
    return list(kinds.values())


def _results_without_host(spec: RunSpec, kinds: Sequence[Kind]) -> Iterator[Result]:
    """Yield a failed result for each cell that no machine can measure. Raises `BackendError` if none can."""
    failures = {cell: Failure.from_error(_no_host_error(cell)) for cell in spec.cells if not _hosts(cell, kinds)}
    if len(failures) == len(set(spec.cells)):
        raise _no_host_error(spec.cells[0])
    for cell, failure in failures.items():
        yield run.failed_result(spec, kinds[0].machine, cell, failure)


def _no_host_error(cell: Cell) -> BackendError:
    return BackendError(f"no machine of the cluster offers {_target(cell)}", "check `mbbench backends` on each of them")


def _target(cell: Cell) -> str:
    return f"{cell.backend}:{cell.device}" if cell.device else cell.backend


def _hosts(cell: Cell, kinds: Sequence[Kind]) -> list[Kind]:
    return [kind for kind in kinds if _target(cell) in kind.locks]


def _submit_cells(
    client: Client, spec: RunSpec, known: Mapping[str, Result], kinds: Sequence[Kind]
) -> dict[Future[CellOutcome], _Task]:
    """Submit every cell to each kind of machine that can measure it, and the training of its weights if needed."""
    checkpoints: dict[object, Future[Parcel]] = {}
    tasks: dict[Future[CellOutcome], _Task] = {}
    for cell in spec.cells:
        hosts = _hosts(cell, kinds)
        if hosts and cell.weights is None and cell.model not in checkpoints:
            checkpoints[cell.model] = client.submit(worker.train, spec, cell, pure=False, priority=_HIGH_PRIORITY)
        for kind in hosts:
            candidates = {  # the worker needs their ids, not their measurements
                id: replace(result, measured=Measured())
                for id, result in known.items()
                if result.machine.id == kind.machine.id and _may_match(result.cell, cell)
            }
            checkpoint = checkpoints[cell.model] if cell.weights is None else None
            future = client.submit(
                worker.measure, replace(spec, cells=(cell,)), checkpoint, candidates, len(kind.locks[_target(cell)]),
                resources=_resources(cell, kind), pure=False,
            )  # fmt: skip
            tasks[future] = _Task(kind, cell, checkpoint)
    return tasks


def _may_match(stored: Cell, cell: Cell) -> bool:
    """Return whether the result of `stored` may be that of `cell`, whose classes and padding are not known yet."""
    identity = attrgetter("label", "role", "weights")
    return cell.device in ("", stored.device) and bool(identity(stored) == identity(cell))


def _resources(cell: Cell, kind: Kind) -> dict[str, int]:
    return {resource_name(_target(cell), kind.machine): 1}


def _submit_shards(
    client: Client, spec: RunSpec, task: _Task, measuring: Future[CellOutcome], outcome: CellOutcome
) -> Future[CellOutcome]:
    """Submit the shards of a measured cell to the workers that could have measured it, and the task that joins them."""
    assert outcome.pending is not None
    cell_spec = replace(spec, cells=(task.cell,))
    parts = [
        client.submit(
            worker.evaluate, cell_spec, task.checkpoint, outcome.result.id, measuring, shard,
            resources=_resources(task.cell, task.kind), priority=_HIGH_PRIORITY, pure=False,
        )
        for shard in outcome.pending.shards
    ]  # fmt: skip
    return client.submit(worker.join, cell_spec, outcome.result, *parts, priority=_HIGH_PRIORITY, pure=False)


def _outcome(spec: RunSpec, task: _Task, future: Future[CellOutcome]) -> CellOutcome:
    """Return the future's outcome; its error becomes the failure of the cell."""
    from distributed import KilledWorker

    error = future.exception()  # type: ignore[no-untyped-call]
    if error is None:
        outcome: CellOutcome = future.result()
        return outcome
    if isinstance(error, KilledWorker):
        error = CellsFailedError("every worker that took this cell died", "check their logs and free memory")
    failure = Failure.from_error(error)
    if task.measured is not None:
        return CellOutcome(replace(task.measured, failure=failure))
    return CellOutcome(run.failed_result(spec, task.kind.machine, task.cell, failure))
