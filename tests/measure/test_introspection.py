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


class Profiled(FakeSession, LayerProfile):
    def profile(self, images: NDArray[np.float32], runs: int) -> tuple[NodeTime, ...]:
        return (NODE,) * runs


class Unmatched(FakeSession, LayerProfile):
    def profile(self, images: NDArray[np.float32], runs: int) -> tuple[NodeTime, ...]:
        return ()


class OnGpu(FakeSession, OnDevice):
    """Each call takes longer to compute than the one before."""

    def device_times(self, images: NDArray[np.float32], runs: int) -> tuple[DeviceCall, ...]:
        return tuple(DeviceCall(0.5, float(number), 0.25) for number in range(1, runs + 1))

    def device_memory_bytes(self) -> int:
        return 400_000_000


class InContainer(OnGpu, LayerProfile):
    """Its driver tells nothing."""

    def device_times(self, images: NDArray[np.float32], runs: int) -> tuple[DeviceCall, ...]:
        raise RuntimeError("no events")

    def device_memory_bytes(self) -> int:
        raise BackendError("the driver lists no process 7", "run outside of a container")

    def profile(self, images: NDArray[np.float32], runs: int) -> tuple[NodeTime, ...]:
        raise BackendError("no profiler", "update it")


@pytest.mark.parametrize(("latency_ms", "runs"), [(1.0, 20), (250.0, 20), (1000.0, 5), (9000.0, 3)])
def test_calls_are_fewer_where_they_are_long(latency_ms: float, runs: int) -> None:
    assert introspection.few(latency_ms) == runs


def test_a_device_tells_medians_of_its_calls_and_its_memory() -> None:
    session = OnGpu((), FakeClock())
    times = DeviceTimes(n=5, to_device_ms=0.5, compute_ms=3.0, to_host_ms=0.25)
    assert introspection.device_times(session, IMAGES, 5) == (times, {})
    assert introspection.device_memory_bytes(session) == (400_000_000, {})


def test_nodes_tell_their_times() -> None:
    assert introspection.node_times(Profiled((), FakeClock()), IMAGES, 3) == ((NODE,) * 3, {})


def test_what_fails_has_a_reason() -> None:
    session = InContainer((), FakeClock())
    memory = {"device_memory_bytes": "the driver lists no process 7; run outside of a container"}
    assert introspection.device_memory_bytes(session) == (None, memory)
    times = {"device_times": "timing on the device failed: RuntimeError: no events"}
    assert introspection.device_times(session, IMAGES, 3) == (None, times)
    nodes = {"layer_times": "profiling failed: no profiler; update it"}
    assert introspection.node_times(session, IMAGES, 3) == ((), nodes)


def test_what_a_session_does_not_offer_has_a_reason() -> None:
    session = FakeSession((), FakeClock())
    reason = "the backend names no device with a clock and memory of its own"
    assert introspection.device_memory_bytes(session) == (None, {"device_memory_bytes": reason})
    assert introspection.device_times(session, IMAGES, 3) == (None, {"device_times": reason})
    nodes = {"layer_times": "the backend does not tell how long its nodes take"}
    assert introspection.node_times(session, IMAGES, 3) == ((), nodes)


def test_times_that_fit_no_layers_are_not_given() -> None:
    reasons = {"layer_times": "the runtime's times fit no layers"}
    assert introspection.node_times(Unmatched((), FakeClock()), IMAGES, 3) == ((), reasons)
