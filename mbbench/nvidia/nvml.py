"""NVML, the driver's own account of a GPU: memory by process, energy, the driver's version."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from mbbench.errors import BackendError
from mbbench.nvidia import runtime

_UNKNOWN = 2**64 - 1  # NVML_VALUE_NOT_AVAILABLE
_BUS_ID_LENGTH = 32
_SEE_DRIVER = "see the driver's documentation"


class Board:
    """A GPU as NVML sees it. Raises `BackendError` if it cannot be opened.

    `index` is CUDA's: NVML numbers all GPUs in the order of their slots, CUDA the visible ones in another order.
    """

    def __init__(self, index: int) -> None:
        self._nvml = _start()
        slot = runtime.cuda("cudaDeviceGetPCIBusId", _BUS_ID_LENGTH, index).partition(b"\0")[0].decode()
        with _translated("NVML cannot find the GPU", runtime.DRIVER):
            self._handle = self._nvml.device_get_handle_by_pci_bus_id_v2(slot)

    def microjoules(self) -> int:
        """Return the energy of the whole board since its driver was loaded. GPUs count it from Volta on."""
        with _translated("NVML reports no energy", _SEE_DRIVER):
            return 1000 * int(self._nvml.device_get_total_energy_consumption(self._handle))

    def process_memory_bytes(self) -> int:
        """Return the bytes of GPU memory that the driver reports for this process."""
        with _translated("NVML reports no processes", _SEE_DRIVER):
            processes = self._nvml.device_get_compute_running_processes_v3(self._handle)
        return memory_of(os.getpid(), ((int(process.pid), int(process.used_gpu_memory)) for process in processes))


def memory_of(pid: int, processes: Iterable[tuple[int, int]]) -> int:
    """Return the bytes of process `pid` among (pid, bytes). Raises `BackendError` if the driver reports none."""
    memory = dict(processes).get(pid)
    if memory is None:
        raise BackendError(f"the driver does not list process {pid} on the GPU", "run mbbench outside a container")
    if memory == _UNKNOWN:
        raise BackendError("the driver does not report memory per process", _SEE_DRIVER)
    return memory


def driver_version() -> str:
    """Return the driver's version from NVML or, without NVML, the newest CUDA version that the driver supports."""
    try:
        nvml = _start()
        with _translated("NVML reports no version", _SEE_DRIVER):
            return str(nvml.system_get_driver_version())
    except BackendError:
        return f"CUDA {runtime.cuda('cudaDriverGetVersion')}"


def _start() -> Any:
    """Return NVML's bindings after starting it; it counts its users, and ends with the process."""
    try:
        nvml = import_module("cuda.bindings.nvml")
    except ImportError as error:
        raise BackendError(
            f"NVML cannot be imported ({error})", "run `pip install -U cuda-bindings` (12.9.6, 13.2 or newer)"
        ) from error
    with _translated("NVML cannot start", runtime.DRIVER):
        nvml.init_v2()
    return nvml


@contextmanager
def _translated(cause: str, remedy: str) -> Iterator[None]:
    """Turn any exception into a `BackendError`: the driver, and the search for its library, raise many types."""
    try:
        yield
    except Exception as error:
        raise BackendError(f"{cause} ({error})", remedy) from error
