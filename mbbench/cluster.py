"""A sweep over several machines, on Dask.distributed: what a worker offers and does, and what is asked of it.

A machine measures one cell at a time: its worker has one thread, and whoever else measures there waits for a lock.
Networks are trained on whichever machine is free, and their checkpoints travel to those that measure them, under the
name of their content. Every cell is measured once on each kind of machine that offers its backend and device. A worker
that dies gives its cell back; a cell that takes several workers with it becomes a row that says so.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mbbench import cache, preparing, registry, run, store
from mbbench.errors import BackendError, CellsFailedError, MbbenchError, UsageError
from mbbench.events import Finished, Notify, Working
from mbbench.machine import Machine, fingerprint
from mbbench.result import Failure, Measured, Result
from mbbench.spec import Cell, RunSpec

if TYPE_CHECKING:
    from distributed import Client, Future

_TRAINING_FIRST = 1  # priority over measuring
_CONNECT_S = 10


@dataclass(frozen=True, slots=True)
class Offer:
    """What a worker says of its machine."""

    machine: Machine
    places: tuple[str, ...]  # `openvino:CPU`, ..., and `openvino` for its first device


@dataclass(frozen=True, slots=True)
class Parcel:
    """A file of the cache on its way to another machine."""

    path: str  # within the cache
    sha256: str
    content: bytes

    @classmethod
    def of(cls, path: Path) -> Parcel:
        content = path.read_bytes()
        return cls(str(path.relative_to(cache.root())), hashlib.sha256(content).hexdigest(), content)

    def unpack(self) -> None:
        """Into this machine's cache, unless it is there. Raises `UsageError` for damaged content."""
        path = cache.root() / self.path
        if path.exists():
            return
        if hashlib.sha256(self.content).hexdigest() != self.sha256:
            raise UsageError(f"{self.path} was damaged on its way", "try again")
        with cache.atomic(path) as temporary:
            temporary.write_bytes(self.content)


def offer(backends: Collection[str] = ()) -> Offer:
    """Every device of every backend that can start here, or of those in `backends`."""
    places: list[str] = []
    for name in registry.names():
        devices = registry.describe(name).devices if not backends or name in backends else {}
        places += [name, *(f"{name}:{device}" for device in devices)] if devices else []
    if not places:
        raise BackendError("this machine has no backend to offer", "see `mbbench backends`")
    return Offer(fingerprint(), tuple(places))


def serve(scheduler: str, backends: Collection[str] = ()) -> None:
    """Work for a scheduler until it closes. Raises `UsageError` if none answers, or `BackendError`."""
    _require_distributed(scheduler, "worker")
    import asyncio

    from distributed import Worker

    found = offer(backends)
    resources = {_resource(place, found.machine): 1.0 for place in found.places}

    async def work() -> None:
        async with Worker(scheduler, nthreads=1, resources=resources, dashboard=False, death_timeout=_CONNECT_S) as own:
            own.offer = found
            await own.finished()

    try:
        asyncio.run(work())
    except (OSError, TimeoutError) as error:
        raise _unreachable(scheduler) from error


def sweep(
    spec: RunSpec, results: Path, notify: Notify, known: Mapping[str, Result], scheduler: str
) -> Iterator[Result]:
    """A result of every cell and kind of machine, stored as each comes in; those in `known` come as they were.

    Raises `UsageError` if no scheduler answers or it has no workers, `BackendError` if none can measure any cell.
    """
    _require_distributed(scheduler, "client")
    from distributed import Client, as_completed

    try:
        client = Client(scheduler, timeout=_CONNECT_S, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, TimeoutError) as error:
        raise _unreachable(scheduler) from error
    with client:
        offers = _by_machine(client.run(_offered).values())
        if not offers:
            raise UsageError("the cluster has no workers", "start `mbbench worker ADDRESS` on every machine")
        asked = _ask(client, spec, known, offers)
        for result in _nowhere(spec, offers):
            store.append(results, result)
            notify(Finished(result))
            yield result
        finished = as_completed(list(asked), loop=client.loop)  # type: ignore[no-untyped-call]
        for done, future in enumerate(finished, 1):
            machine, cell = asked[future]
            result = _outcome(spec, machine, cell, future)
            if result.id in known:
                result = known[result.id]
            else:
                store.append(results, result)
                notify(Finished(result))
            notify(Working("measuring on the cluster", done, len(asked)))
            yield result


def _by_machine(offers: Iterable[Offer]) -> list[Offer]:
    """What all workers of each kind of machine offer together."""
    found: dict[str, Offer] = {}
    for one in offers:
        before = found.get(one.machine.id, Offer(one.machine, ()))
        found[one.machine.id] = Offer(one.machine, tuple(dict.fromkeys((*before.places, *one.places))))
    return list(found.values())


def _nowhere(spec: RunSpec, offers: Sequence[Offer]) -> Iterator[Result]:
    """The rows of cells that no machine can measure; raises `BackendError` if that is all of them."""
    failures = {cell: Failure.of(_unplaced(cell)) for cell in spec.cells if not _hosts(cell, offers)}
    if len(failures) == len(set(spec.cells)):
        raise _unplaced(spec.cells[0])
    for cell, failure in failures.items():
        yield run.failed(spec, offers[0].machine, cell, failure)


def _unplaced(cell: Cell) -> BackendError:
    return BackendError(f"no machine of the cluster offers {_place(cell)}", "see `mbbench backends` on each")


def _place(cell: Cell) -> str:
    return f"{cell.backend}:{cell.device}" if cell.device else cell.backend


def _hosts(cell: Cell, offers: Sequence[Offer]) -> list[Machine]:
    return [found.machine for found in offers if _place(cell) in found.places]


def _ask(
    client: Client, spec: RunSpec, known: Mapping[str, Result], offers: Sequence[Offer]
) -> dict[Future[Result], tuple[Machine, Cell]]:
    """Submit every cell once for each kind of machine that can measure it, and before that the trainings it needs."""
    trained: dict[object, Future[Parcel]] = {}
    asked: dict[Future[Result], tuple[Machine, Cell]] = {}
    for cell in spec.cells:
        hosts = _hosts(cell, offers)
        if hosts and cell.weights is None and cell.model not in trained:
            trained[cell.model] = client.submit(_train, spec, cell, pure=False, priority=_TRAINING_FIRST)
        for machine in hosts:
            own = {  # their ids are what counts there: the rest need not travel
                key: replace(one, measured=Measured())
                for key, one in known.items()
                if one.machine.id == machine.id and _alike(one.cell, cell)
            }
            parcel = trained[cell.model] if cell.weights is None else None
            future = client.submit(
                _measure, replace(spec, cells=(cell,)), parcel, own,
                resources={_resource(_place(cell), machine): 1}, pure=False,
            )  # fmt: skip
            asked[future] = machine, cell
    return asked


def _alike(one: Cell, other: Cell) -> bool:
    """Whether the one's result may be the other's, whose classes and padding are not known yet."""
    return one.label == other.label and (one.role, one.device, one.weights) == (other.role, other.device, other.weights)


def _outcome(spec: RunSpec, machine: Machine, cell: Cell, future: Future[Result]) -> Result:
    from distributed import KilledWorker

    error = future.exception()  # type: ignore[no-untyped-call]
    if error is None:
        found: Result = future.result()
        return found
    if isinstance(error, KilledWorker):
        error = CellsFailedError("every worker that took this cell died", "see their logs: out of memory, say")
    return run.failed(spec, machine, cell, Failure.of(error))


def _offered(dask_worker: object) -> Offer:
    """Runs on a worker; the argument's name is how Dask hands it itself."""
    found: Offer = dask_worker.offer  # type: ignore[attr-defined]
    return found


def _train(spec: RunSpec, cell: Cell) -> Parcel:
    """Runs on a worker."""
    with _alone():
        _, found = preparing.weigh(spec, cell, lambda _: None)
    return Parcel.of(found.path)


def _measure(spec: RunSpec, parcel: Parcel | None, known: Mapping[str, Result]) -> Result:
    """Runs on a worker: `spec` has one cell."""
    (cell,) = spec.cells
    try:
        if parcel is not None:
            parcel.unpack()
        with _alone(), tempfile.TemporaryDirectory() as folder:
            (result,) = run.run(spec, Path(folder, "results.jsonl"), lambda _: None, known)
            return result
    except MbbenchError as error:  # it may hold for this machine alone
        return run.failed(spec, fingerprint(), cell, Failure.of(error))


@contextmanager
def _alone() -> Iterator[None]:
    """One measurement at a time on a machine, and no training beside it, whatever the number of its workers."""
    import fcntl

    path = cache.root() / "measuring.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _resource(place: str, machine: Machine) -> str:
    return f"{place}@{machine.id}"


def _require_distributed(scheduler: str, role: str) -> None:
    try:
        from distributed.security import Security
    except ImportError as error:
        raise UsageError(f"Dask cannot be imported ({error})", "run `pip install 'mbbench[cluster]'`") from error
    if not scheduler.startswith("tls://"):
        return
    try:
        certificates = Security().get_connection_args(role)["ssl_context"]  # type: ignore[no-untyped-call]
    except OSError as error:
        raise UsageError(f"Dask cannot read its certificates ({error})", "see docs/cluster.md") from error
    if certificates is None:
        raise UsageError(f"{scheduler} needs certificates, Dask's configuration names none", "see docs/cluster.md")


def _unreachable(scheduler: str) -> UsageError:
    return UsageError(f"no scheduler answers at {scheduler}", "start `dask scheduler` there, and look at its address")
