"""Sweeps on a real scheduler with real worker processes; each has its own cache, like a machine of its own."""

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
from mbbench.cluster.shards import MeasuredArtifact
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
# A worker that splits even the few images of these tests.
WORKER = "from mbbench.cli import app; from mbbench.cluster import shards; shards.MIN_IMAGES = 32; app.main()"
SPEC = RunSpec(cells=CELLS, data="digits", images=40, settings=SETTINGS)
Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def scheduler() -> Iterator[str]:
    with LocalCluster(  # type: ignore[no-untyped-call]
        n_workers=0, processes=False, dashboard_address=None, host="127.0.0.1", protocol="tcp"
    ) as local_cluster:
        yield local_cluster.scheduler_address


@pytest.fixture
def start(scheduler: str, tmp_path: Path) -> Iterator[Start]:
    """Start a worker whose cache holds only the machine's ceilings, and wait until it has joined the scheduler."""
    ceilings.machine_ceilings(fingerprint(), pick_cpus(1), SETTINGS, quiet)
    started: list[subprocess.Popen[bytes]] = []

    def start_worker(*options: str) -> subprocess.Popen[bytes]:
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

    yield start_worker
    for process in started:
        process.kill()
        process.wait()


def _wait_for(scheduler: str, workers: int) -> None:
    from distributed import Client

    with Client(scheduler, set_as_default=False) as client:  # type: ignore[no-untyped-call]
        client.wait_for_workers(workers, timeout=60)


def quiet(event: Event) -> None:
    pass


def run_sweep(spec: RunSpec, path: Path, scheduler: str) -> list[tuple[float, bool]]:
    return sorted(
        (result.cell.model.alpha, result.failure is None) for result in sweep.sweep(spec, path, quiet, scheduler)
    )


def test_a_stored_result_is_not_measured_again(scheduler: str, start: Start, tmp_path: Path) -> None:
    start("--resources", "onnxruntime")
    path = tmp_path / "results.jsonl"
    assert run_sweep(replace(SPEC, cells=CELLS[:2]), path, scheduler) == [(0.25, True), (0.3, True)]
    stored = store.read(path)
    assert {result.machine.id for result in stored} == {fingerprint().id}
    assert all(result.measured.latency is not None for result in stored)
    assert run_sweep(replace(SPEC, cells=CELLS[:3]), path, scheduler) == [(0.25, True), (0.3, True), (0.35, True)]
    assert store.read(path)[:2] == stored and len(store.read(path)) == 3


@pytest.mark.slow
def test_weights_trained_by_one_worker_are_measured_by_another(scheduler: str, start: Start, tmp_path: Path) -> None:
    start("--resources", "onnxruntime")
    start("--resources", "torch-eager")
    cells = [replace(CELLS[0], weights=None, backend=backend) for backend in ("onnxruntime", "torch-eager")]
    results = list(sweep.sweep(replace(SPEC, cells=tuple(cells)), tmp_path / "results.jsonl", quiet, scheduler))
    assert [result.failure for result in results] == [None, None]
    assert len({result.weights.key for result in results if result.weights is not None}) == 1
    first, second = (folder.read_bytes() for folder in tmp_path.glob("cache-*/weights/*.safetensors"))
    assert first == second


@pytest.mark.slow
def test_the_cell_of_a_killed_worker_is_measured_by_another(scheduler: str, start: Start, tmp_path: Path) -> None:
    first, _ = start(), start()
    path = tmp_path / "results.jsonl"
    remaining = sweep.sweep(SPEC, path, quiet, scheduler)
    results = [next(remaining)]
    deadline = time.monotonic() + 60
    while not (children := psutil.Process(first.pid).children()) and time.monotonic() < deadline:
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    first.wait()
    results += remaining
    assert children and not any(child.is_running() and child.status() != "zombie" for child in children)
    assert sorted(result.cell.model.alpha for result in results) == [0.25, 0.3, 0.35, 0.4]
    assert all(result.failure is None for result in results)
    assert sorted(result.id for result in store.read(path)) == sorted(result.id for result in results)


def labeled_spec(images: int) -> RunSpec:
    """A cell whose weights are a file, so that its accuracy is measured against labels."""
    model = ModelSpec(alpha=0.25, resolution=32, classes=10)
    cell = replace(CELLS[0], model=model, weights=str(weights.random(model).path))
    return replace(SPEC, cells=(cell,), images=images)


@pytest.mark.usefixtures("all_threads")
def test_two_machines_of_a_kind_evaluate_a_cell_in_shards(scheduler: str, start: Start, tmp_path: Path) -> None:
    spec = labeled_spec(100)
    (local,) = run.run(spec, tmp_path / "local.jsonl", quiet)
    for _ in range(2):
        start("--resources", "onnxruntime")
    path = tmp_path / "results.jsonl"
    (result,) = sweep.sweep(spec, path, quiet, scheduler)
    assert (result.failure, result.id) == (None, local.id)
    assert result.measured.accuracy == local.measured.accuracy is not None
    assert result.measured.latency is not None and result.measured.layers
    assert store.read(path) == [result]
    names = [{path.stem[16:] for path in tmp_path.glob(f"cache-{which}/references/*")} for which in range(2)]
    assert names[0] | names[1] == {"-0-32", "-0-64", "-64-100"}  # the first is for parity
    assert len(list(tmp_path.glob("cache-*/artifacts/*.onnx"))) == 1
    assert list(sweep.sweep(spec, path, quiet, scheduler)) == [result]
    assert store.read(path) == [result]


@pytest.mark.slow
@pytest.mark.usefixtures("all_threads")
def test_the_shard_of_a_killed_worker_is_evaluated_by_another(scheduler: str, start: Start, tmp_path: Path) -> None:
    spec = labeled_spec(300)
    (local,) = run.run(spec, tmp_path / "local.jsonl", quiet)
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
    assert (result.failure, result.id) == (None, local.id)
    assert result.measured.accuracy == local.measured.accuracy is not None


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
        (RuntimeError("unexpected"), "RuntimeError: unexpected"),
    ],
)
def test_a_cell_whose_shard_fails_keeps_what_was_measured(
    make_result: Callable[..., Result], error: Exception, cause: str
) -> None:
    class Failed:
        def exception(self) -> Exception:
            return error

    measured = make_result()
    (kind,) = cluster.group_by_kind([worker.Capabilities(measured.machine, ("onnxruntime",), "here")])
    task = cluster._Task(kind, CELLS[0], None, measured)
    result = cluster._outcome(SPEC, task, Failed()).result  # type: ignore[arg-type]
    assert result.failure is not None and result.failure.cause == cause
    assert replace(result, failure=None) == measured
    unmeasured = cluster._outcome(SPEC, replace(task, measured=None), Failed()).result  # type: ignore[arg-type]
    assert unmeasured.failure == result.failure and unmeasured.measured == Measured()


def test_an_evaluation_holds_the_lock_and_opens_the_measured_artifact(
    make_result: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "artifact.onnx"
    file.write_bytes(b"measured")
    artifact = Artifact(file, "onnx", "fp32", "fp32", CELLS[0].model, 1, "aa")
    pending = worker.PendingEvaluation(
        MeasuredArtifact(artifact, "bb"), Parcel.of(file, tmp_path), (Shard(0, 32), Shard(32, 64))
    )
    answers = Answers(
        classes=2,
        session=(),
        reference=(),
        labels=None,
        reason_without_top1="no labels",
        among_five=(),
        sum_errors=(),
        max_error=0.0,
    )

    def evaluate_shard(spec: RunSpec, id: str, measured: MeasuredArtifact, path: Path, shard: Shard) -> Answers:
        assert (id, measured, path.read_bytes(), shard) == ("cc", pending.measured, b"measured", Shard(32, 64))
        with worker._lock_path().open("w") as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return answers

    monkeypatch.setattr(shards, "evaluate_shard", evaluate_shard)
    outcome = worker.CellOutcome(make_result(), pending)
    assert worker.evaluate(SPEC, None, "cc", outcome, Shard(32, 64)) is answers
    with pytest.raises(CellsFailedError, match="the worker that had this cell's artifact died"):
        worker.evaluate(SPEC, None, "cc", replace(outcome, pending=None), Shard(32, 64))


def test_workers_that_share_a_lock_count_once(make_result: Callable[..., Result]) -> None:
    machine = make_result().machine
    other_machine = replace(machine, cpu="Another CPU")
    first, second = cluster.group_by_kind(
        [
            worker.Capabilities(machine, ("openvino", "openvino:CPU"), "a"),
            worker.Capabilities(machine, ("openvino", "onnxruntime"), "a"),
            worker.Capabilities(other_machine, ("openvino",), "c"),
            worker.Capabilities(machine, ("openvino",), "b"),
        ]
    )
    assert (first.machine, second.machine) == (machine, other_machine)
    assert {place: len(locks) for place, locks in first.locks.items()} == {
        "openvino": 2, "openvino:CPU": 1, "onnxruntime": 1
    }  # fmt: skip
    assert {place: len(locks) for place, locks in second.locks.items()} == {"openvino": 1}


def test_a_failed_cell_has_a_result_with_its_failure(scheduler: str, start: Start, tmp_path: Path) -> None:
    start("--resources", "onnxruntime")
    cells = (replace(CELLS[0], precision="fp16"), CELLS[0], replace(CELLS[0], backend="openvino", precision="bf16"))
    results = list(sweep.sweep(replace(SPEC, cells=cells), tmp_path / "results.jsonl", quiet, scheduler))
    failures = {result.cell.precision: result.failure for result in results}
    assert failures["fp32"] is None
    assert failures["fp16"] is not None and failures["fp16"].exit_code == 6
    assert "would only emulate it" in failures["fp16"].cause
    assert failures["bf16"] is not None and failures["bf16"].cause == "no machine of the cluster offers openvino"
    elsewhere = replace(SPEC, cells=(replace(CELLS[0], backend="openvino"),))
    with pytest.raises(BackendError, match="no machine of the cluster offers openvino; check `mbbench"):
        list(sweep.sweep(elsewhere, tmp_path / "results.jsonl", quiet, scheduler))


def test_a_cluster_without_workers_or_scheduler_is_refused(
    scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="the cluster has no workers; start `mbbench worker ADDRESS` on every machine"):
        list(sweep.sweep(SPEC, tmp_path / "results.jsonl", quiet, scheduler))
    monkeypatch.setattr(connect, "TIMEOUT_S", 1)
    with pytest.raises(UsageError, match=r"no scheduler answers at tcp://127.0.0.1:9; start `dask scheduler` there"):
        list(sweep.sweep(SPEC, tmp_path / "results.jsonl", quiet, "tcp://127.0.0.1:9"))
    with pytest.raises(UsageError, match=r"no scheduler answers at tcp://127.0.0.1:9"):
        worker.serve("tcp://127.0.0.1:9", ("onnxruntime",))


@pytest.mark.parametrize("address", ["", "host", "host:", "host:0", "host:70000", "http://host:8786", "a b:1", "///"])
def test_what_is_no_address_is_refused_before_connecting(address: str) -> None:
    with pytest.raises(UsageError) as caught:
        worker.serve(address)
    assert str(caught.value) == f"not an address of a Dask scheduler: {address!r}; write it like tls://host:8786"


@pytest.mark.parametrize(
    "address", ["tls://host:8786", "tcp://127.0.0.1:9", "my-host.example:65535", "tcp://[::1]:8786"]
)
def test_addresses_of_dask_are_accepted(address: str) -> None:
    connect.require_address(address)


def test_an_encrypted_cluster_needs_certificates(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"tls://127.0.0.1:9 requires certificates, but Dask's configuration has none; set up"
    ):
        worker.serve("tls://127.0.0.1:9")
    missing = {f"distributed.comm.tls.{name}": str(tmp_path / "missing.pem") for name in ("ca-file", "client.cert")}
    with dask.config.set(missing), pytest.raises(UsageError, match=r"Dask cannot read its certificates \(.*set up"):
        list(cluster.sweep(SPEC, tmp_path / "results.jsonl", quiet, {}, "tls://127.0.0.1:9"))


def test_a_machine_offers_the_devices_of_its_backends() -> None:
    assert worker.capabilities(("onnxruntime",)).targets == ("onnxruntime", "onnxruntime:cpu")
    with pytest.raises(BackendError, match="none of missing can start on this machine"):
        worker.capabilities(("missing",))


@pytest.mark.usefixtures("faulty_backends")
@pytest.mark.parametrize("broken", ["faulty-devices", "faulty-versions"])
def test_a_broken_runtime_does_not_keep_a_machine_from_offering_the_others(broken: str) -> None:
    assert worker.capabilities((broken, "onnxruntime")).targets == ("onnxruntime", "onnxruntime:cpu")
    with pytest.raises(BackendError, match=f"none of {broken} can start on this machine"):
        worker.capabilities((broken,))


def test_a_parcel_is_unpacked_once_and_only_if_undamaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    with pytest.raises(UsageError, match=r"weights/aa.safetensors was damaged in transfer; run the sweep again"):
        replace(parcel, content=b"changed").unpack(tmp_path / "there")
