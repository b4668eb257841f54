"""Calls of CUDA's runtime; their errors become `BackendError`. Nothing here creates a context on a GPU."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from mbbench.errors import BackendError
from mbbench.spec import Precision

DRIVER = "install NVIDIA's driver, or run this on a machine with an NVIDIA GPU"
_ERRORS = {
    35: ("no NVIDIA driver was found", DRIVER),
    100: ("no NVIDIA GPU was found", DRIVER),
    2: ("the GPU's memory is full", "free memory on the GPU or lower the batch size"),
}


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU's name and compute capability."""

    name: str
    capability: tuple[int, int]

    @property
    def description(self) -> str:
        """The name with the compute capability, as sessions report it."""
        return f"{self.name} (compute capability {'.'.join(map(str, self.capability))})"


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
    """Return the GPU that CUDA numbers `index`. Raises `BackendError`."""
    properties = cuda("cudaGetDeviceProperties", index)
    name = properties.name
    return Gpu(name.decode() if isinstance(name, bytes) else str(name), (properties.major, properties.minor))


def index_of(device: str) -> int:
    """Return CUDA's number of the device `cuda:N`."""
    return int(device.rpartition(":")[2])


def native_precisions(capability: tuple[int, ...]) -> frozenset[Precision]:
    """Return fp32 and what tensor cores run: fp16 from compute capability 7.0, int8 from 7.2, bf16 from 8.0."""
    precisions: set[Precision] = {"fp32"}
    if capability >= (7, 0):
        precisions.add("fp16")
    if capability >= (7, 2):
        precisions.add("int8")
    if capability >= (8, 0):
        precisions.add("bf16")
    return frozenset(precisions)
