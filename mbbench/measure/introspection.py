"""What a runtime reports about itself after all timing: times of its nodes, and a device's own clock and memory.

Every function returns a reason with an unknown value; a failure here never fails the cell.
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

_MAX_RUNS = 20
_MIN_RUNS = 3
_MAX_RUNS_S = 5.0
_NOT_ON_DEVICE = "the backend reports no device with its own clock and memory"

Reasons = dict[str, str]


def profile_runs(latency_ms: float) -> int:
    """Return how many calls to profile: 20, or fewer (at least 3) if they would take longer than 5 s."""
    return min(_MAX_RUNS, max(_MIN_RUNS, round(_MAX_RUNS_S * 1e3 / latency_ms)))


def device_memory_bytes(session: Session) -> tuple[int | None, Reasons]:
    """Return the bytes of device memory that this process holds, or None and the reason."""
    if not isinstance(session, OnDevice):
        return None, {"device_memory_bytes": _NOT_ON_DEVICE}
    try:
        return session.device_memory_bytes(), {}
    except MbbenchError as error:
        return None, {"device_memory_bytes": str(error)}


def device_times(session: Session, images: NDArray[np.float32], runs: int) -> tuple[DeviceTimes | None, Reasons]:
    """Return the medians over `runs` calls of a call's parts by the device's clock, or None and the reason."""
    if not isinstance(session, OnDevice):
        return None, {"device_times": _NOT_ON_DEVICE}
    try:
        calls = session.device_times(images, runs)
    except Exception as error:  # runtimes raise exceptions of any type
        return None, {"device_times": f"timing on the device failed: {_message(error)}"}
    times = DeviceTimes(
        n=len(calls),
        to_device_ms=median(call.to_device_ms for call in calls),
        compute_ms=median(call.compute_ms for call in calls),
        to_host_ms=median(call.to_host_ms for call in calls),
    )
    return times, {}


def node_times(session: Session, images: NDArray[np.float32], runs: int) -> tuple[tuple[NodeTime, ...], Reasons]:
    """Return each executed node's median time over `runs` calls, or nothing and the reason.

    The session may open a second one to profile.
    """
    if not isinstance(session, LayerProfile):
        return (), {"layer_times": "the backend reports no node times"}
    try:
        times = session.profile(images, runs)
    except Exception as error:  # profilers raise exceptions of any type
        return (), {"layer_times": f"profiling failed: {_message(error)}"}
    return times, {} if times else {"layer_times": "the runtime's times match no layers"}


def _message(error: Exception) -> str:
    return str(error) if isinstance(error, MbbenchError) else f"{type(error).__name__}: {error}"
