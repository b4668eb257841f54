"""What a runtime tells of itself after all timing: its nodes' times, and a device's own clock and memory.

Each comes with why it is not known, if it is not; none of it costs a cell more than that.
"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from mbbench.backend import LayerProfile, NodeTime, OnDevice, Session
from mbbench.errors import MbbenchError
from mbbench.result import DeviceTimes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_CALLS = 20  # fewer where they would take longer than _CALLS_S
_CALLS_S = 5.0
_ON_HOST = "the backend names no device with a clock and memory of its own"

Reasons = dict[str, str]


def few(latency_ms: float) -> int:
    """As many calls as do not take long, but three at least."""
    return min(_CALLS, max(3, round(_CALLS_S * 1e3 / latency_ms)))


def device_memory_bytes(session: Session) -> tuple[int | None, Reasons]:
    """What the process holds of the device's memory."""
    if not isinstance(session, OnDevice):
        return None, {"device_memory_bytes": _ON_HOST}
    try:
        return session.device_memory_bytes(), {}
    except MbbenchError as error:
        return None, {"device_memory_bytes": str(error)}


def device_times(session: Session, images: NDArray[np.float32], runs: int) -> tuple[DeviceTimes | None, Reasons]:
    """The parts of a call by the device's own clock: medians of `runs`."""
    if not isinstance(session, OnDevice):
        return None, {"device_times": _ON_HOST}
    try:
        calls = session.device_times(images, runs)
    except Exception as error:  # whatever the runtime raises
        return None, {"device_times": f"timing on the device failed: {_reason(error)}"}
    times = DeviceTimes(
        n=len(calls),
        to_device_ms=median(call.to_device_ms for call in calls),
        compute_ms=median(call.compute_ms for call in calls),
        to_host_ms=median(call.to_host_ms for call in calls),
    )
    return times, {}


def node_times(session: Session, images: NDArray[np.float32], runs: int) -> tuple[tuple[NodeTime, ...], Reasons]:
    """Of each executed node, medians of `runs` calls; empty where they are not known. May open a second session."""
    if not isinstance(session, LayerProfile):
        return (), {"layer_times": "the backend does not tell how long its nodes take"}
    try:
        times = session.profile(images, runs)
    except Exception as error:  # whatever the runtime's profiler raises
        return (), {"layer_times": f"profiling failed: {_reason(error)}"}
    return times, {} if times else {"layer_times": "the runtime's times fit no layers"}


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, MbbenchError) else f"{type(error).__name__}: {error}"
