"""The stages of a session's making; whole measurements are in test_process.py, in real child processes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mbbench.backend import LayerProfile, OnDevice, Session, Stage
from mbbench.errors import BackendError
from mbbench.measure import latency, worker
from mbbench.measure.worker import Stages
from mbbench.result import Cold, DeviceCall, DeviceTimes, Measured, NodeTime, WarmUp
from mbbench.testing import FakeClock, FakeSession


def stages(monkeypatch: pytest.MonkeyPatch, *announced: Stage) -> Stages:
    """Each stage begins when the clock strikes the next of 1, 2, 4, 8."""
    strikes = iter(2.0**power for power in range(5))
    found = Stages()
    for stage in announced:
        strike = next(strikes)
        monkeypatch.setattr(worker, "perf_counter", lambda now=strike: now)
        found(stage)
    strike = next(strikes)
    monkeypatch.setattr(worker, "perf_counter", lambda: strike)
    found.end_phase()
    return found


def test_each_stage_lasts_until_the_next_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    found = stages(monkeypatch, "import", "load", "compile")
    assert found.cold(0.5) == (Cold(import_s=1.0, load_s=2.0, compile_s=4.0, first_inference_ms=500.0), {})
    assert [reading.phase for reading in found.memory] == ["start", "import", "load", "compile"]


def test_a_runtime_that_reads_and_compiles_in_one_call_has_no_load_time(monkeypatch: pytest.MonkeyPatch) -> None:
    found = stages(monkeypatch, "import", "compile")
    reasons = {"cold.load_s": "the runtime reads and compiles in one call"}
    assert found.cold(0.5) == (Cold(import_s=1.0, load_s=None, compile_s=2.0, first_inference_ms=500.0), reasons)
    assert [reading.phase for reading in found.memory] == ["start", "import", "compile"]


class Profiled(FakeSession, LayerProfile):
    """Tells in each node's name how many calls it is the median of."""

    def profile(self, images: NDArray[np.float32], runs: int) -> tuple[NodeTime, ...]:
        return (NodeTime((str(runs),), "Conv", "fp32", 1.0),)


class Unmatched(FakeSession, LayerProfile):
    def profile(self, images: NDArray[np.float32], runs: int) -> tuple[NodeTime, ...]:
        return ()


class OnGpu(FakeSession, OnDevice):
    """Each call takes longer to compute than the one before."""

    def device_times(self, images: NDArray[np.float32], runs: int) -> tuple[DeviceCall, ...]:
        return tuple(DeviceCall(0.5, float(number), 0.25) for number in range(1, runs + 1))

    def device_memory_bytes(self) -> int:
        return 400_000_000


class InContainer(OnGpu):
    """Its driver tells nothing."""

    def device_times(self, images: NDArray[np.float32], runs: int) -> tuple[DeviceCall, ...]:
        raise RuntimeError("no events")

    def device_memory_bytes(self) -> int:
        raise BackendError("the driver lists no process 7", "run outside of a container")


IMAGES = np.zeros((1, 3, 32, 32), np.float32)


def timed(out: Path, latency_ms: float) -> worker._Progress:
    progress = worker._Progress(out)
    warmed = WarmUp(runs=1, seconds=0.1, steady=True)
    figures, _ = latency.summarize([round(latency_ms * 1e6)] * 20, batch=1, warmed=warmed)
    progress.report = replace(progress.report, measured=Measured(latency=figures))
    return progress


def profiled(session: Session, out: Path, latency_ms: float) -> worker.Report:
    progress = timed(out, latency_ms)
    worker._profile(session, IMAGES, progress)
    return progress.report


def on_device(session: Session, out: Path) -> worker.Report:
    progress = timed(out, 1000.0)
    worker._weigh(session, progress)
    worker._split(session, IMAGES, progress)
    return progress.report


def test_a_device_tells_medians_of_a_few_calls_and_its_memory(tmp_path: Path) -> None:
    report = on_device(OnGpu((), FakeClock()), tmp_path / "out.json")
    assert report.measured.device_times == DeviceTimes(n=5, to_device_ms=0.5, compute_ms=3.0, to_host_ms=0.25)
    assert (report.measured.device_memory_bytes, report.reasons) == (400_000_000, {})


def test_what_a_device_does_not_tell_has_a_reason(tmp_path: Path) -> None:
    report = on_device(InContainer((), FakeClock()), tmp_path / "out.json")
    assert (report.measured.device_times, report.measured.device_memory_bytes) == (None, None)
    assert report.reasons == {
        "device_memory_bytes": "the driver lists no process 7; run outside of a container",
        "device_times": "timing on the device failed: RuntimeError: no events",
    }


def test_the_host_is_no_device_of_its_own(tmp_path: Path) -> None:
    report = on_device(FakeSession((), FakeClock()), tmp_path / "out.json")
    assert (report.measured.device_times, report.measured.device_memory_bytes) == (None, None)
    reason = "the backend names no device with a clock and memory of its own"
    assert report.reasons == {"device_times": reason, "device_memory_bytes": reason}


@pytest.mark.parametrize(("latency_ms", "runs"), [(1.0, 20), (250.0, 20), (1000.0, 5), (9000.0, 3)])
def test_a_profile_is_of_fewer_calls_where_they_are_long(tmp_path: Path, latency_ms: float, runs: int) -> None:
    report = profiled(Profiled((), FakeClock()), tmp_path / "out.json", latency_ms)
    assert report.measured.node_times == (NodeTime((str(runs),), "Conv", "fp32", 1.0),)
    assert (report.measured.node_runs, report.reasons) == (runs, {})


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (FakeSession, "the backend does not tell how long its nodes take"),
        (Unmatched, "the runtime's times fit no layers"),
    ],
)
def test_no_times_have_a_reason(tmp_path: Path, kind: type[FakeSession], reason: str) -> None:
    report = profiled(kind((), FakeClock()), tmp_path / "out.json", 1.0)
    assert (report.measured.node_times, report.measured.node_runs) == ((), None)
    assert report.reasons == {"layer_times": reason}
