"""The worker's side of a sweep over several machines: what it offers, and the tasks it is given."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mbbench import cache, registry, run
from mbbench.artifacts import prepare
from mbbench.cluster import connect, shards
from mbbench.cluster.parcel import Parcel
from mbbench.errors import BackendError, CellsFailedError, MbbenchError
from mbbench.machine import Machine, fingerprint
from mbbench.measure.accuracy import Answers
from mbbench.result import Failure, Result
from mbbench.spec import Cell, RunSpec, Shard


@dataclass(frozen=True, slots=True)
class Offer:
    """What a worker says of its machine."""

    machine: Machine
    places: tuple[str, ...]  # `openvino:CPU`, ..., and `openvino` for its first device
    lock: str  # workers with the same one wait for each other


@dataclass(frozen=True, slots=True)
class Remainder:
    """What others need to evaluate a cell that was measured without its accuracy."""

    subject: shards.Subject
    artifact: Parcel
    shards: tuple[Shard, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    result: Result
    remainder: Remainder | None = None


def offer(backends: Collection[str] = ()) -> Offer:
    """Every device of every backend that can start here, or of those in `backends`."""
    places: list[str] = []
    for name in registry.names():
        devices = registry.describe(name).devices if not backends or name in backends else {}
        places += [name, *(f"{name}:{device}" for device in devices)] if devices else []
    if not places:
        raise BackendError("this machine has no backend to offer", "see `mbbench backends`")
    return Offer(fingerprint(), tuple(places), f"{platform.node()}:{_lock()}")


def serve(scheduler: str, backends: Collection[str] = ()) -> None:
    """Work for a scheduler until it closes. Raises `UsageError` if none answers, or `BackendError`."""
    connect.require_distributed(scheduler, "worker")
    import asyncio

    from distributed import Worker

    found = offer(backends)
    resources = {resource(place, found.machine): 1.0 for place in found.places}

    async def work() -> None:
        async with Worker(
            scheduler,
            nthreads=1,
            memory_limit=0,  # none: Dask's own is a thread's share of the machine's, and would pause whoever exceeds it
            resources=resources,
            dashboard=False,
            death_timeout=connect.TIMEOUT_S,
        ) as own:
            own.offer = found
            await own.finished()

    try:
        asyncio.run(work())
    except (OSError, TimeoutError) as error:
        raise connect.unreachable(scheduler) from error


def resource(place: str, machine: Machine) -> str:
    """What a task asks for that needs this backend and device on this kind of machine."""
    return f"{place}@{machine.id}"


def offered(dask_worker: object) -> Offer:
    """The argument's name is how Dask hands a worker itself."""
    found: Offer = dask_worker.offer  # type: ignore[attr-defined]
    return found


def train(spec: RunSpec, cell: Cell) -> Parcel:
    with _alone():
        _, found = prepare.resolve_weights(spec, cell, lambda _: None)
    return Parcel.of(found.path, cache.root())


def measure(spec: RunSpec, trained: Parcel | None, known: Mapping[str, Result], workers: int) -> Outcome:
    """`spec` has one cell, whose accuracy is left to up to `workers` of them if there are images enough for each."""
    (cell,) = spec.cells
    try:
        if trained is not None:
            trained.unpack(cache.root())
        with _alone(), tempfile.TemporaryDirectory() as folder:
            parts = shards.plan_shards(spec, workers) if workers > 1 else ()
            apart = len(parts) > 1
            (result,) = run.run(spec, Path(folder, "results.jsonl"), lambda _: None, known, evaluate=not apart)
            if not apart or result.failure is not None or result.id in known:
                return Outcome(result)
            subject = shards.subject(spec)
            artifact = Parcel.of(subject.artifact.path, subject.artifact.path.parent)
            return Outcome(result, Remainder(subject, artifact, parts))
    except MbbenchError as error:  # it may hold for this machine alone
        return Outcome(run.failed(spec, fingerprint(), cell, Failure.of(error)))


def evaluate(spec: RunSpec, trained: Parcel | None, id: str, outcome: Outcome, shard: Shard) -> Answers:
    """Raises `MbbenchError`. `outcome` is of the cell measured as `id`, or of measuring it again if that was lost."""
    if outcome.remainder is None:
        raise CellsFailedError("the worker that had this cell's artifact died, and no other made it", "run it again")
    if trained is not None:
        trained.unpack(cache.root())
    with _alone(), tempfile.TemporaryDirectory() as folder:
        path = outcome.remainder.artifact.unpack(Path(folder))
        return shards.answers(spec, id, outcome.remainder.subject, path, shard)


def join(spec: RunSpec, result: Result, *parts: Answers) -> Outcome:
    return Outcome(shards.join(spec, result, parts))


@contextmanager
def _alone() -> Iterator[None]:
    """One measurement at a time on a machine, and no training or evaluation beside it, however many workers it has."""
    import fcntl

    path = _lock()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _lock() -> Path:
    return cache.root().absolute() / "measuring.lock"
