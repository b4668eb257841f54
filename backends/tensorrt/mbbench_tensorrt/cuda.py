"""CUDA's runtime and NVML through NVIDIA's own bindings; what fails becomes a `BackendError`."""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from mbbench.errors import BackendError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DRIVER = "install NVIDIA's driver, or run this on a machine with an NVIDIA GPU"
_CAUSES = {35: "no NVIDIA driver was found", 100: "no NVIDIA GPU was found", 2: "the GPU's memory is full"}
_UNKNOWN = 2**64 - 1  # NVML_VALUE_NOT_AVAILABLE
_BUS_ID_LENGTH = 32


@dataclass(frozen=True, slots=True)
class Gpu:
    name: str
    capability: tuple[int, int]


def bindings() -> Any:
    """The bindings of CUDA's runtime."""
    try:
        return import_module("cuda.bindings.runtime")
    except ImportError as error:
        raise BackendError(f"cuda-bindings cannot be imported ({error})", "run `pip install cuda-bindings`") from error


def cuda(function: str, *arguments: Any) -> Any:
    """Call CUDA's runtime; its errors become `BackendError` with their name and number."""
    status, *values = getattr(bindings(), function)(*arguments)
    if int(status):
        cause = _CAUSES.get(int(status), f"{function} failed")
        raise BackendError(f"{cause} (cudaError {int(status)}, {status.name})", DRIVER)
    return values[0] if values else None


def count() -> int:
    return int(cuda("cudaGetDeviceCount"))


def gpu(index: int) -> Gpu:
    properties = cuda("cudaGetDeviceProperties", index)
    name = properties.name
    return Gpu(name.decode() if isinstance(name, bytes) else str(name), (properties.major, properties.minor))


def driver_version() -> str:
    """The driver's, where NVML tells it, else that of the newest CUDA it serves."""
    try:
        with _nvml() as nvml:
            return str(nvml.system_get_driver_version())
    except BackendError:
        return f"CUDA {cuda('cudaDriverGetVersion')}"


def process_memory_bytes(index: int) -> int:
    """The GPU memory that this process holds, by the driver's account; raises `BackendError`."""
    bus_id = cuda("cudaDeviceGetPCIBusId", _BUS_ID_LENGTH, index)
    with _nvml() as nvml:
        handle = nvml.device_get_handle_by_pci_bus_id_v2(bus_id.decode().rstrip("\0"))
        processes = nvml.device_get_compute_running_processes_v3(handle)
        return held_by(os.getpid(), ((int(one.pid), int(one.used_gpu_memory)) for one in processes))


def held_by(process: int, holders: Iterable[tuple[int, int]]) -> int:
    """The bytes of `process` among (process, bytes); raises `BackendError` where the driver does not tell them."""
    held = dict(holders).get(process)
    if held is None:
        raise BackendError(f"the driver lists no process {process} on the GPU", "run outside of a container")
    if held == _UNKNOWN:
        raise BackendError("the driver does not tell how much memory a process holds", "see its documentation")
    return held


@contextmanager
def _nvml() -> Iterator[Any]:
    try:
        nvml = import_module("cuda.bindings.nvml")
    except ImportError as error:
        raise BackendError("this cuda-bindings has no NVML", "run `pip install --upgrade cuda-bindings`") from error
    try:
        nvml.init_v2()
    except (nvml.NvmlError, RuntimeError) as error:  # the driver's library may be missing altogether
        raise BackendError(f"NVML cannot start ({error})", DRIVER) from error
    try:
        yield nvml
    except nvml.NvmlError as error:
        raise BackendError(f"NVML failed ({error})", DRIVER) from error
    finally:
        nvml.shutdown()


class Pinned:
    """A float32 array in page-locked host memory, which the GPU reads and writes by itself."""

    array: NDArray[np.float32]

    def __init__(self, shape: tuple[int, ...]) -> None:
        import numpy as np

        count = math.prod(shape)
        self.address = int(cuda("cudaMallocHost", count * ctypes.sizeof(ctypes.c_float)))
        self.array = np.ctypeslib.as_array((ctypes.c_float * count).from_address(self.address)).reshape(shape)

    def free(self) -> None:
        cuda("cudaFreeHost", self.address)
