"""A sweep over several machines, on Dask.distributed: what is asked of its workers.

A machine measures one cell at a time: its worker has one thread, and whoever else measures there waits for a lock.
Networks are trained on whichever machine is free, and their checkpoints travel to those that measure them. Every cell
is measured once on each kind of machine that offers its backend and device. Where several workers of a kind do, and
there are many test images, its accuracy is left to all of them in shards, on the artifact that was measured. A worker
that dies gives its task back; a task that takes several workers with it fails its cell, with what was measured by then.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mbbench import run, store
from mbbench.cluster import connect, worker
from mbbench.cluster.worker import Offer, Outcome, resource
from mbbench.errors import BackendError, CellsFailedError, UsageError
from mbbench.events import Finished, Notify, Working
from mbbench.machine import Machine
from mbbench.result import Failure, Measured, Result
from mbbench.spec import Cell, RunSpec

if TYPE_CHECKING:
    from distributed import Client, Future

    from mbbench.cluster.parcel import Parcel

_FIRST = 1  # the priority, over measuring, of what others wait for


@dataclass(frozen=True, slots=True)
class Kind:
    """The machines of one fingerprint: at every place, the locks of the workers that offer it."""

    machine: Machine
    locks: Mapping[str, frozenset[str]]


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a future is to say; with `measured`, what is to be added to that."""

    kind: Kind
    cell: Cell
    trained: Future[Parcel] | None
    measured: Result | None = None


def sweep(
    spec: RunSpec, results: Path, notify: Notify, known: Mapping[str, Result], scheduler: str
) -> Iterator[Result]:
    """A result of every cell and kind of machine, stored as each comes in; those in `known` come as they were.

    Raises `UsageError` if no scheduler answers or it has no workers, `BackendError` if none can measure any cell.
    """
    connect.require_distributed(scheduler, "client")
    from distributed import Client, as_completed

    try:
        client = Client(scheduler, timeout=connect.TIMEOUT_S, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, TimeoutError) as error:
        raise connect.unreachable(scheduler) from error
    with client:
        kinds = by_kind(client.run(worker.offered).values())
        if not kinds:
            raise UsageError("the cluster has no workers", "start `mbbench worker ADDRESS` on every machine")
        asked = _ask(client, spec, known, kinds)
        for result in _nowhere(spec, kinds):
            store.append(results, result)
            notify(Finished(result))
            yield result
        done, total = 0, len(asked)
        finished = as_completed(list(asked), loop=client.loop)  # type: ignore[no-untyped-call]
        for future in finished:
            one = asked.pop(future)
            outcome = _outcome(spec, one, future)
            if outcome.remainder is not None:
                shared = _share(client, spec, one, future, outcome)
                asked[shared] = replace(one, measured=outcome.result)
                finished.add(shared)  # type: ignore[no-untyped-call]
                continue
            result = outcome.result
            if result.id in known:
                result = known[result.id]
            else:
                store.append(results, result)
                notify(Finished(result))
            done += 1
            notify(Working("measuring on the cluster", done, total))
            yield result


def by_kind(offers: Iterable[Offer]) -> list[Kind]:
    """What all workers of each kind of machine offer together."""
    found: dict[str, Kind] = {}
    for one in offers:
        before = found.get(one.machine.id, Kind(one.machine, {}))
        own = {place: before.locks.get(place, frozenset()) | {one.lock} for place in one.places}
        found[one.machine.id] = Kind(one.machine, {**before.locks, **own})
    return list(found.values())


def _nowhere(spec: RunSpec, kinds: Sequence[Kind]) -> Iterator[Result]:
    """The rows of cells that no machine can measure; raises `BackendError` if that is all of them."""
    failures = {cell: Failure.of(_unplaced(cell)) for cell in spec.cells if not _hosts(cell, kinds)}
    if len(failures) == len(set(spec.cells)):
        raise _unplaced(spec.cells[0])
    for cell, failure in failures.items():
        yield run.failed(spec, kinds[0].machine, cell, failure)


def _unplaced(cell: Cell) -> BackendError:
    return BackendError(f"no machine of the cluster offers {_place(cell)}", "see `mbbench backends` on each")


def _place(cell: Cell) -> str:
    return f"{cell.backend}:{cell.device}" if cell.device else cell.backend


def _hosts(cell: Cell, kinds: Sequence[Kind]) -> list[Kind]:
    return [kind for kind in kinds if _place(cell) in kind.locks]


def _ask(
    client: Client, spec: RunSpec, known: Mapping[str, Result], kinds: Sequence[Kind]
) -> dict[Future[Outcome], _Asked]:
    """Submit every cell once for each kind of machine that can measure it, and before that the trainings it needs."""
    trained: dict[object, Future[Parcel]] = {}
    asked: dict[Future[Outcome], _Asked] = {}
    for cell in spec.cells:
        hosts = _hosts(cell, kinds)
        if hosts and cell.weights is None and cell.model not in trained:
            trained[cell.model] = client.submit(worker.train, spec, cell, pure=False, priority=_FIRST)
        for kind in hosts:
            own = {  # their ids are what counts there: the rest need not travel
                key: replace(one, measured=Measured())
                for key, one in known.items()
                if one.machine.id == kind.machine.id and _alike(one.cell, cell)
            }
            parcel = trained[cell.model] if cell.weights is None else None
            future = client.submit(
                worker.measure, replace(spec, cells=(cell,)), parcel, own, len(kind.locks[_place(cell)]),
                resources=_needs(cell, kind), pure=False,
            )  # fmt: skip
            asked[future] = _Asked(kind, cell, parcel)
    return asked


def _alike(one: Cell, other: Cell) -> bool:
    """Whether the one's result may be the other's, whose classes and padding are not known yet."""
    return one.label == other.label and (one.role, one.device, one.weights) == (other.role, other.device, other.weights)


def _needs(cell: Cell, kind: Kind) -> dict[str, int]:
    return {resource(_place(cell), kind.machine): 1}


def _share(
    client: Client, spec: RunSpec, asked: _Asked, measured: Future[Outcome], outcome: Outcome
) -> Future[Outcome]:
    """Have the cell evaluated wherever it could have been measured, and all answers joined to its result."""
    assert outcome.remainder is not None
    own = replace(spec, cells=(asked.cell,))
    parts = [
        client.submit(
            worker.evaluate, own, asked.trained, outcome.result.id, measured, shard,
            resources=_needs(asked.cell, asked.kind), priority=_FIRST, pure=False,
        )
        for shard in outcome.remainder.shards
    ]  # fmt: skip
    return client.submit(worker.join, own, outcome.result, *parts, priority=_FIRST, pure=False)


def _outcome(spec: RunSpec, asked: _Asked, future: Future[Outcome]) -> Outcome:
    from distributed import KilledWorker

    error = future.exception()  # type: ignore[no-untyped-call]
    if error is None:
        found: Outcome = future.result()
        return found
    if isinstance(error, KilledWorker):
        error = CellsFailedError("every worker that took this cell died", "see their logs: out of memory, say")
    failure = Failure.of(error)
    if asked.measured is not None:
        return Outcome(replace(asked.measured, failure=failure))
    return Outcome(run.failed(spec, asked.kind.machine, asked.cell, failure))
