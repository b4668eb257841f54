"""A sweep over several machines: the worker's side, what it offers and the tasks it runs."""

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
class Capabilities:
    """What a worker can measure, and on which machine."""

    machine: Machine
    targets: tuple[str, ...]  # backend and device (`openvino:CPU`), and `openvino` for the backend's first device
    lock: str  # workers with the same lock wait for each other


@dataclass(frozen=True, slots=True)
class PendingEvaluation:
    """What workers need to evaluate a cell that was measured without its accuracy."""

    measured: shards.MeasuredArtifact
    artifact: Parcel
    shards: tuple[Shard, ...]


@dataclass(frozen=True, slots=True)
class CellOutcome:
    """A cell's result. `pending`: how to evaluate its accuracy, if that is left to other tasks."""

    result: Result
    pending: PendingEvaluation | None = None


def capabilities(backends: Collection[str] = ()) -> Capabilities:
    """Return every device of the backends that can start here; with `backends`, of those only.

    Raises `BackendError` if there is none.
    """
    targets: list[str] = []
    for name in registry.names():
        devices = registry.describe(name).devices if not backends or name in backends else {}
        targets += [name, *(f"{name}:{device}" for device in devices)] if devices else []
    if not targets:
        names = f"none of {', '.join(backends)}" if backends else "no backend"
        raise BackendError(f"{names} can start on this machine", "see `mbbench backends` for the reasons")
    return Capabilities(fingerprint(), tuple(targets), f"{platform.node()}:{_lock_path()}")


def serve(scheduler: str, backends: Collection[str] = ()) -> None:
    """Work for a scheduler until it closes. Raises `UsageError` if none answers, or `BackendError`."""
    connect.require_distributed(scheduler, "worker")
    import asyncio

    from distributed import Worker

    offered = capabilities(backends)
    resources = {resource_name(target, offered.machine): 1.0 for target in offered.targets}

    async def work() -> None:
        async with Worker(
            scheduler,
            nthreads=1,
            memory_limit=0,  # none: Dask's default, one thread's share of the memory, would pause the worker
            resources=resources,
            dashboard=False,
            death_timeout=connect.TIMEOUT_S,
        ) as dask_worker:
            dask_worker.capabilities = offered
            await dask_worker.finished()

    try:
        asyncio.run(work())
    except (OSError, TimeoutError) as error:
        raise connect.unreachable_error(scheduler) from error


def resource_name(target: str, machine: Machine) -> str:
    """Return the name of the Dask resource for this backend and device on this kind of machine."""
    return f"{target}@{machine.id}"


def capabilities_of(dask_worker: object) -> Capabilities:
    """Return the capabilities of a worker. Dask passes the worker itself to a parameter called `dask_worker`."""
    offered: Capabilities = dask_worker.capabilities  # type: ignore[attr-defined]
    return offered


def train(spec: RunSpec, cell: Cell) -> Parcel:
    """Return the checkpoint of the cell's weights, trained if needed."""
    with _machine_lock():
        _, weights = prepare.resolve_weights(spec, cell, lambda _: None)
    return Parcel.of(weights.path, cache.root())


def measure(spec: RunSpec, checkpoint: Parcel | None, known: Mapping[str, Result], workers: int) -> CellOutcome:
    """Measure the only cell of `spec`.

    Its accuracy is left to up to `workers` workers if there are enough images for each of them.
    """
    (cell,) = spec.cells
    try:
        if checkpoint is not None:
            checkpoint.unpack(cache.root())
        with _machine_lock(), tempfile.TemporaryDirectory() as folder:
            parts = shards.plan_shards(spec, workers) if workers > 1 else ()
            sharded = len(parts) > 1
            (result,) = run.run(spec, Path(folder, "results.jsonl"), lambda _: None, known, evaluate=not sharded)
            if not sharded or result.failure is not None or result.id in known:
                return CellOutcome(result)
            measured = shards.measured_artifact(spec)
            artifact = Parcel.of(measured.artifact.path, measured.artifact.path.parent)
            return CellOutcome(result, PendingEvaluation(measured, artifact, parts))
    except MbbenchError as error:  # the cell may succeed on another machine
        return CellOutcome(run.failed_result(spec, fingerprint(), cell, Failure.from_error(error)))


def evaluate(spec: RunSpec, checkpoint: Parcel | None, id: str, outcome: CellOutcome, shard: Shard) -> Answers:
    """Return the answers to a shard of the cell that was measured as `id`. Raises `MbbenchError`.

    `outcome` is that of measuring the cell, or of measuring it again if Dask lost the first one.
    """
    if outcome.pending is None:
        raise CellsFailedError(
            "the worker that had this cell's artifact died, and measuring the cell again made none",
            "run the sweep again",
        )
    if checkpoint is not None:
        checkpoint.unpack(cache.root())
    with _machine_lock(), tempfile.TemporaryDirectory() as folder:
        path = outcome.pending.artifact.unpack(Path(folder))
        return shards.evaluate_shard(spec, id, outcome.pending.measured, path, shard)


def join(spec: RunSpec, result: Result, *parts: Answers) -> CellOutcome:
    """Return the result of a cell, with the accuracy from the answers to all its shards."""
    return CellOutcome(shards.join(spec, result, parts))


@contextmanager
def _machine_lock() -> Iterator[None]:
    """Hold the machine's lock: one measurement, training or evaluation at a time, however many workers it has."""
    import fcntl

    path = _lock_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _lock_path() -> Path:
    return cache.root().absolute() / "measuring.lock"
