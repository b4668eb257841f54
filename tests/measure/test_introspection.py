import numpy as np
import pytest
from numpy.typing import NDArray

from mbbench.backend import DeviceCall, LayerProfile, NodeTime, OnDevice
from mbbench.errors import BackendError
from mbbench.measure import introspection
from mbbench.result import DeviceTimes
from mbbench.testing import FakeClock, FakeSession

IMAGES = np.zeros((1, 3, 32, 32), np.float32)
NODE = NodeTime(("stem.conv",), "Conv", "fp32", 1.0)


class ProfiledSession(FakeSession, LayerProfile):
    def profile(self, images: NDArray[np.float32], runs: int) -> tuple[NodeTime, ...]:
        return (NODE,) * runs


class UnmatchedSession(FakeSession, LayerProfile):
    def profile(self, images: NDArray[np.float32], runs: int) -> tuple[NodeTime, ...]:
        return ()


class GpuSession(FakeSession, OnDevice):
    """A session in which each call computes longer than the last."""

    def device_times(self, images: NDArray[np.float32], runs: int) -> tuple[DeviceCall, ...]:
        return tuple(DeviceCall(0.5, float(number), 0.25) for number in range(1, runs + 1))

    def device_memory_bytes(self) -> int:
        return 400_000_000


class FailingSession(GpuSession, LayerProfile):
    """A session whose runtime and driver report errors, as in a container."""

    def device_times(self, images: NDArray[np.float32], runs: int) -> tuple[DeviceCall, ...]:
        raise RuntimeError("no events")

    def device_memory_bytes(self) -> int:
        raise BackendError("the driver does not list process 7", "run mbbench outside a container")

    def profile(self, images: NDArray[np.float32], runs: int) -> tuple[NodeTime, ...]:
        raise BackendError("no profiler", "update it")


@pytest.mark.parametrize(("latency_ms", "runs"), [(1.0, 20), (250.0, 20), (1000.0, 5), (9000.0, 3)])
def test_long_calls_are_profiled_fewer_times(latency_ms: float, runs: int) -> None:
    assert introspection.profile_runs(latency_ms) == runs


def test_device_times_are_medians_and_device_memory_is_reported() -> None:
    session = GpuSession((), FakeClock())
    times = DeviceTimes(n=5, to_device_ms=0.5, compute_ms=3.0, to_host_ms=0.25)
    assert introspection.device_times(session, IMAGES, 5) == (times, {})
    assert introspection.device_memory_bytes(session) == (400_000_000, {})


def test_node_times_are_returned() -> None:
    assert introspection.node_times(ProfiledSession((), FakeClock()), IMAGES, 3) == ((NODE,) * 3, {})


def test_each_failure_is_a_reason() -> None:
    session = FailingSession((), FakeClock())
    memory = {"device_memory_bytes": "the driver does not list process 7; run mbbench outside a container"}
    assert introspection.device_memory_bytes(session) == (None, memory)
    times = {"device_times": "timing on the device failed: RuntimeError: no events"}
    assert introspection.device_times(session, IMAGES, 3) == (None, times)
    nodes = {"layer_times": "profiling failed: no profiler; update it"}
    assert introspection.node_times(session, IMAGES, 3) == ((), nodes)


def test_each_missing_capability_is_a_reason() -> None:
    session = FakeSession((), FakeClock())
    reason = "the backend reports no device with its own clock and memory"
    assert introspection.device_memory_bytes(session) == (None, {"device_memory_bytes": reason})
    assert introspection.device_times(session, IMAGES, 3) == (None, {"device_times": reason})
    nodes = {"layer_times": "the backend reports no node times"}
    assert introspection.node_times(session, IMAGES, 3) == ((), nodes)


def test_times_that_match_no_layers_are_a_reason() -> None:
    reasons = {"layer_times": "the runtime's times match no layers"}
    assert introspection.node_times(UnmatchedSession((), FakeClock()), IMAGES, 3) == ((), reasons)
