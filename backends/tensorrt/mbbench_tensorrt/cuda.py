"""Calls of CUDA's runtime and NVML through NVIDIA's bindings; their errors become `BackendError`."""

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
_ERRORS = {
    35: ("no NVIDIA driver was found", DRIVER),
    100: ("no NVIDIA GPU was found", DRIVER),
    2: ("the GPU's memory is full", "free memory on the GPU or lower the batch size"),
}
_UNKNOWN = 2**64 - 1  # NVML_VALUE_NOT_AVAILABLE
_BUS_ID_LENGTH = 32


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU's name and compute capability."""

    name: str
    capability: tuple[int, int]


def bindings() -> Any:
    """Return the bindings of CUDA's runtime. Raises `BackendError` if they are not installed."""
    try:
        return import_module("cuda.bindings.runtime")
    except ImportError as error:
        raise BackendError(f"cuda-bindings cannot be imported ({error})", "run `pip install cuda-bindings`") from error


def cuda(function: str, *arguments: Any) -> Any:
    """Call a function of CUDA's runtime and return its result. Raises `BackendError` with its error."""
    status, *values = getattr(bindings(), function)(*arguments)
    if int(status):
        cause, remedy = _ERRORS.get(int(status), (f"{function} failed", "check the GPU with `nvidia-smi`"))
        raise BackendError(f"{cause} (cudaError {int(status)}, {status.name})", remedy)
    return values[0] if values else None


def count() -> int:
    """Return the number of GPUs. Raises `BackendError` if there is no driver."""
    return int(cuda("cudaGetDeviceCount"))


def gpu(index: int) -> Gpu:
    properties = cuda("cudaGetDeviceProperties", index)
    name = properties.name
    return Gpu(name.decode() if isinstance(name, bytes) else str(name), (properties.major, properties.minor))


def driver_version() -> str:
    """Return the driver's version from NVML or, without NVML, the newest CUDA version that the driver supports."""
    try:
        with _nvml() as nvml:
            return str(nvml.system_get_driver_version())
    except BackendError:
        return f"CUDA {cuda('cudaDriverGetVersion')}"


def process_memory_bytes(index: int) -> int:
    """Return the bytes of GPU memory that the driver reports for this process. Raises `BackendError` if it does not."""
    bus_id = cuda("cudaDeviceGetPCIBusId", _BUS_ID_LENGTH, index)
    with _nvml() as nvml:
        handle = nvml.device_get_handle_by_pci_bus_id_v2(bus_id.decode().rstrip("\0"))
        processes = nvml.device_get_compute_running_processes_v3(handle)
        return memory_of(os.getpid(), ((int(process.pid), int(process.used_gpu_memory)) for process in processes))


def memory_of(pid: int, processes: Iterable[tuple[int, int]]) -> int:
    """Return the bytes of process `pid` among (pid, bytes). Raises `BackendError` if the driver reports none."""
    memory = dict(processes).get(pid)
    if memory is None:
        raise BackendError(f"the driver does not list process {pid} on the GPU", "run mbbench outside a container")
    if memory == _UNKNOWN:
        raise BackendError("the driver does not report memory per process", "see the driver's documentation")
    return memory


@contextmanager
def _nvml() -> Iterator[Any]:
    try:
        nvml = import_module("cuda.bindings.nvml")
    except ImportError as error:
        raise BackendError(
            "the installed cuda-bindings has no NVML", "run `pip install --upgrade cuda-bindings`"
        ) from error
    try:
        nvml.init_v2()
    except (nvml.NvmlError, RuntimeError) as error:  # RuntimeError: the driver's library is missing
        raise BackendError(f"NVML cannot start ({error})", DRIVER) from error
    try:
        yield nvml
    except nvml.NvmlError as error:
        raise BackendError(f"NVML failed ({error})", DRIVER) from error
    finally:
        nvml.shutdown()


class Pinned:
    """A float32 array in page-locked host memory, which the GPU reads and writes directly."""

    array: NDArray[np.float32]

    def __init__(self, shape: tuple[int, ...]) -> None:
        import numpy as np

        count = math.prod(shape)
        self.address = int(cuda("cudaMallocHost", count * ctypes.sizeof(ctypes.c_float)))
        self.array = np.ctypeslib.as_array((ctypes.c_float * count).from_address(self.address)).reshape(shape)

    def free(self) -> None:
        cuda("cudaFreeHost", self.address)
