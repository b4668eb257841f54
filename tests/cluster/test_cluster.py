"""Sweeps on a real scheduler with real worker processes, each with a cache of its own, as on another machine."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import dask
import psutil  # type: ignore[import-untyped]
import pytest
from distributed import KilledWorker, LocalCluster
from distributed.scheduler import WorkerState

from mbbench import cache, cluster, run, store, sweep, weights
from mbbench.backend import Artifact
from mbbench.cluster import connect, shards, worker
from mbbench.cluster.parcel import Parcel
from mbbench.cluster.shards import Subject
from mbbench.errors import BackendError, CellsFailedError, UsageError
from mbbench.events import Event
from mbbench.machine import fingerprint, pick_cpus
from mbbench.measure import ceilings
from mbbench.measure.accuracy import Answers
from mbbench.result import Measured, Result
from mbbench.spec import Cell, ModelSpec, RunSpec, Settings, Shard

SETTINGS = Settings(min_samples=20, min_s=0.01, max_s=1.0, warmup_max_s=0.5, throughput_s=0.05, bulk_batch=8)
CELLS = tuple(
    Cell(
        model=ModelSpec(alpha=alpha, resolution=32), role="subject", weights="random", backend="onnxruntime", device=""
    )
    for alpha in (0.25, 0.3, 0.35, 0.4)
)
# A worker that shares out even the few images of these tests.
WORKER = "from mbbench.cli import app; from mbbench.cluster import shards; shards.MIN_IMAGES = 32; app.main()"
SPEC = RunSpec(cells=CELLS, data="digits", images=40, settings=SETTINGS)
Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def scheduler() -> Iterator[str]:
    with LocalCluster(  # type: ignore[no-untyped-call]
        n_workers=0, processes=False, dashboard_address=None, host="127.0.0.1", protocol="tcp"
    ) as own:
        yield own.scheduler_address


@pytest.fixture
def start(scheduler: str, tmp_path: Path) -> Iterator[Start]:
    """Start a worker, whose cache holds no more than the machine's ceilings, and wait until the scheduler knows it."""
    ceilings.of(fingerprint(), pick_cpus(1), SETTINGS, quiet)
    started: list[subprocess.Popen[bytes]] = []

    def one(*options: str) -> subprocess.Popen[bytes]:
        shutil.copytree(cache.root() / "ceilings", tmp_path / f"cache-{len(started)}" / "ceilings")
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", WORKER, "worker", scheduler, *options],
                env={**os.environ, "MBBENCH_CACHE": str(tmp_path / f"cache-{len(started)}")},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )
        _wait_for(scheduler, len(started))
        return started[-1]

    yield one
    for process in started:
        process.kill()
        process.wait()


def _wait_for(scheduler: str, workers: int) -> None:
    from distributed import Client

    with Client(scheduler, set_as_default=False) as client:  # type: ignore[no-untyped-call]
        client.wait_for_workers(workers, timeout=60)


def quiet(event: Event) -> None:
    pass


def swept(spec: RunSpec, path: Path, scheduler: str) -> list[tuple[float, bool]]:
    return sorted(
        (result.cell.model.alpha, result.failure is None) for result in sweep.sweep(spec, path, quiet, scheduler)
    )


def test_what_is_known_is_not_measured_again(scheduler: str, start: Start, tmp_path: Path) -> None:
    start("--resources", "onnxruntime")
    path = tmp_path / "results.jsonl"
    assert swept(replace(SPEC, cells=CELLS[:2]), path, scheduler) == [(0.25, True), (0.3, True)]
    stored = store.read(path)
    assert {result.machine.id for result in stored} == {fingerprint().id}
    assert all(result.measured.latency is not None for result in stored)
    assert swept(replace(SPEC, cells=CELLS[:3]), path, scheduler) == [(0.25, True), (0.3, True), (0.35, True)]
    assert store.read(path)[:2] == stored and len(store.read(path)) == 3


@pytest.mark.slow
def test_what_one_worker_trained_another_measures(scheduler: str, start: Start, tmp_path: Path) -> None:
    start("--resources", "onnxruntime")
    start("--resources", "torch-eager")
    cells = [replace(CELLS[0], weights=None, backend=backend) for backend in ("onnxruntime", "torch-eager")]
    results = list(sweep.sweep(replace(SPEC, cells=tuple(cells)), tmp_path / "results.jsonl", quiet, scheduler))
    assert [result.failure for result in results] == [None, None]
    assert len({result.weights.key for result in results if result.weights is not None}) == 1
    first, second = (folder.read_bytes() for folder in tmp_path.glob("cache-*/weights/*.safetensors"))
    assert first == second


@pytest.mark.slow
def test_a_worker_that_is_killed_gives_its_cell_back(scheduler: str, start: Start, tmp_path: Path) -> None:
    first, _ = start(), start()
    path = tmp_path / "results.jsonl"
    found = sweep.sweep(SPEC, path, quiet, scheduler)
    results = [next(found)]
    deadline = time.monotonic() + 60
    while not (children := psutil.Process(first.pid).children()) and time.monotonic() < deadline:
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    first.wait()
    results += found
    assert children and not any(child.is_running() and child.status() != "zombie" for child in children)
    assert sorted(result.cell.model.alpha for result in results) == [0.25, 0.3, 0.35, 0.4]
    assert all(result.failure is None for result in results)
    assert sorted(result.id for result in store.read(path)) == sorted(result.id for result in results)


def labelled(images: int) -> RunSpec:
    """A cell whose weights are a file: its accuracy is against labels."""
    model = ModelSpec(alpha=0.25, resolution=32, classes=10)
    cell = replace(CELLS[0], model=model, weights=str(weights.random(model).path))
    return replace(SPEC, cells=(cell,), images=images)


@pytest.mark.usefixtures("all_threads")
def test_two_machines_of_a_kind_share_the_images_of_a_cell(scheduler: str, start: Start, tmp_path: Path) -> None:
    spec = labelled(100)
    (alone,) = run.run(spec, tmp_path / "alone.jsonl", quiet)
    for _ in range(2):
        start("--resources", "onnxruntime")
    path = tmp_path / "results.jsonl"
    (result,) = sweep.sweep(spec, path, quiet, scheduler)
    assert (result.failure, result.id) == (None, alone.id)
    assert result.measured.accuracy == alone.measured.accuracy is not None
    assert result.measured.latency is not None and result.measured.layers
    assert store.read(path) == [result]
    names = [{path.stem[16:] for path in tmp_path.glob(f"cache-{which}/references/*")} for which in range(2)]
    assert names[0] | names[1] == {"-0-32", "-0-64", "-64-100"}  # the first for parity
    assert len(list(tmp_path.glob("cache-*/artifacts/*.onnx"))) == 1
    assert list(sweep.sweep(spec, path, quiet, scheduler)) == [result]
    assert store.read(path) == [result]


@pytest.mark.slow
@pytest.mark.usefixtures("all_threads")
def test_a_worker_killed_while_it_evaluates_gives_its_shard_back(scheduler: str, start: Start, tmp_path: Path) -> None:
    spec = labelled(300)
    (alone,) = run.run(spec, tmp_path / "alone.jsonl", quiet)
    workers = [start("--resources", "onnxruntime") for _ in range(2)]
    killed: list[int] = []

    def kill() -> None:
        deadline = time.monotonic() + 120
        while not killed and time.monotonic() < deadline:
            for process in workers:
                if any("mbbench.measure.jobs.shard" in child.cmdline() for child in _children(process.pid)):
                    process.send_signal(signal.SIGKILL)
                    killed.append(process.pid)
                    break
            time.sleep(0.01)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(kill)
        (result,) = sweep.sweep(spec, tmp_path / "results.jsonl", quiet, scheduler)
    assert len(killed) == 1
    assert (result.failure, result.id) == (None, alone.id)
    assert result.measured.accuracy == alone.measured.accuracy is not None


def _children(pid: int) -> list[psutil.Process]:
    try:
        return [child for child in psutil.Process(pid).children() if child.status() != psutil.STATUS_ZOMBIE]
    except psutil.NoSuchProcess:
        return []


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (CellsFailedError("the measuring process was killed", "free memory"), "the measuring process was killed"),
        (KilledWorker("evaluate", WorkerState.__new__(WorkerState), 3), "every worker that took this cell died"),
        (RuntimeError("lost its mind"), "RuntimeError: lost its mind"),
    ],
)
def test_a_shard_that_fails_costs_nothing_that_was_measured(
    make_result: Callable[..., Result], error: Exception, cause: str
) -> None:
    class Failed:
        def exception(self) -> Exception:
            return error

    measured = make_result()
    (kind,) = cluster.by_kind([worker.Offer(measured.machine, ("onnxruntime",), "here")])
    asked = cluster._Asked(kind, CELLS[0], None, measured)
    result = cluster._outcome(SPEC, asked, Failed()).result  # type: ignore[arg-type]
    assert result.failure is not None and result.failure.cause == cause
    assert replace(result, failure=None) == measured
    unmeasured = cluster._outcome(SPEC, replace(asked, measured=None), Failed()).result  # type: ignore[arg-type]
    assert unmeasured.failure == result.failure and unmeasured.measured == Measured()


def test_nothing_runs_beside_an_evaluation_and_the_artifact_is_the_measured_one(
    make_result: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "artifact.onnx"
    file.write_bytes(b"measured")
    artifact = Artifact(file, "onnx", "fp32", "fp32", CELLS[0].model, 1, "aa")
    remainder = worker.Remainder(Subject(artifact, "bb"), Parcel.of(file, tmp_path), (Shard(0, 32), Shard(32, 64)))
    said = Answers(
        classes=2,
        session=(),
        reference=(),
        labels=None,
        reason_without_top1="none",
        among_five=(),
        sum_errors=(),
        max_error=0.0,
    )

    def answers(spec: RunSpec, id: str, subject: Subject, path: Path, shard: Shard) -> Answers:
        assert (id, subject, path.read_bytes(), shard) == ("cc", remainder.subject, b"measured", Shard(32, 64))
        with worker._lock().open("w") as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return said

    monkeypatch.setattr(shards, "answers", answers)
    outcome = worker.Outcome(make_result(), remainder)
    assert worker.evaluate(SPEC, None, "cc", outcome, Shard(32, 64)) is said
    with pytest.raises(CellsFailedError, match="the worker that had this cell's artifact died"):
        worker.evaluate(SPEC, None, "cc", replace(outcome, remainder=None), Shard(32, 64))


def test_workers_that_wait_for_each_other_count_once(make_result: Callable[..., Result]) -> None:
    machine = make_result().machine
    other = replace(machine, cpu="Another CPU")
    first, second = cluster.by_kind(
        [
            worker.Offer(machine, ("openvino", "openvino:CPU"), "a"),
            worker.Offer(machine, ("openvino", "onnxruntime"), "a"),
            worker.Offer(other, ("openvino",), "c"),
            worker.Offer(machine, ("openvino",), "b"),
        ]
    )
    assert (first.machine, second.machine) == (machine, other)
    assert {place: len(locks) for place, locks in first.locks.items()} == {
        "openvino": 2, "openvino:CPU": 1, "onnxruntime": 1
    }  # fmt: skip
    assert {place: len(locks) for place, locks in second.locks.items()} == {"openvino": 1}


def test_a_cell_that_fails_on_its_machine_is_a_row(scheduler: str, start: Start, tmp_path: Path) -> None:
    start("--resources", "onnxruntime")
    cells = (replace(CELLS[0], precision="fp16"), CELLS[0], replace(CELLS[0], backend="openvino", precision="bf16"))
    results = list(sweep.sweep(replace(SPEC, cells=cells), tmp_path / "results.jsonl", quiet, scheduler))
    failures = {result.cell.precision: result.failure for result in results}
    assert failures["fp32"] is None
    assert failures["fp16"] is not None and failures["fp16"].exit_code == 6
    assert "would only emulate it" in failures["fp16"].cause
    assert failures["bf16"] is not None and failures["bf16"].cause == "no machine of the cluster offers openvino"
    elsewhere = replace(SPEC, cells=(replace(CELLS[0], backend="openvino"),))
    with pytest.raises(BackendError, match="no machine of the cluster offers openvino; see `mbbench backends` on each"):
        list(sweep.sweep(elsewhere, tmp_path / "results.jsonl", quiet, scheduler))


def test_a_cluster_without_workers_or_scheduler_is_one_line(
    scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="the cluster has no workers; start `mbbench worker ADDRESS` on every machine"):
        list(sweep.sweep(SPEC, tmp_path / "results.jsonl", quiet, scheduler))
    monkeypatch.setattr(connect, "TIMEOUT_S", 1)
    with pytest.raises(UsageError, match=r"no scheduler answers at tcp://127.0.0.1:9; start `dask scheduler` there"):
        list(sweep.sweep(SPEC, tmp_path / "results.jsonl", quiet, "tcp://127.0.0.1:9"))
    with pytest.raises(UsageError, match=r"no scheduler answers at tcp://127.0.0.1:9"):
        worker.serve("tcp://127.0.0.1:9", ("onnxruntime",))


def test_an_encrypted_cluster_needs_certificates(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"tls://127.0.0.1:9 needs certificates, Dask's configuration names none; see docs"
    ):
        worker.serve("tls://127.0.0.1:9")
    missing = {f"distributed.comm.tls.{name}": str(tmp_path / "none.pem") for name in ("ca-file", "client.cert")}
    with dask.config.set(missing), pytest.raises(UsageError, match=r"Dask cannot read its certificates \(.*see docs"):
        list(cluster.sweep(SPEC, tmp_path / "results.jsonl", quiet, {}, "tls://127.0.0.1:9"))


def test_a_machine_offers_the_devices_of_its_backends() -> None:
    assert worker.offer(("onnxruntime",)).places == ("onnxruntime", "onnxruntime:cpu")
    with pytest.raises(BackendError, match="this machine has no backend to offer"):
        worker.offer(("nothing",))


def test_a_parcel_unpacks_once_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MBBENCH_CACHE", str(tmp_path / "here"))
    path = tmp_path / "here" / "weights" / "aa.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    parcel = Parcel.of(path, tmp_path / "here")
    assert parcel.path == "weights/aa.safetensors"
    monkeypatch.setenv("MBBENCH_CACHE", str(tmp_path / "there"))
    parcel.unpack(tmp_path / "there")
    there = tmp_path / "there" / "weights" / "aa.safetensors"
    assert there.read_bytes() == b"weights"
    there.write_bytes(b"mine")
    parcel.unpack(tmp_path / "there")
    assert there.read_bytes() == b"mine"
    there.unlink()
    with pytest.raises(UsageError, match=r"weights/aa.safetensors was damaged on its way; try again"):
        replace(parcel, content=b"changed").unpack(tmp_path / "there")
