"""CUDA's runtime, faked, and the real bindings on a machine without a driver."""

from types import SimpleNamespace
from typing import Any

import pytest

from mbbench.errors import BackendError
from mbbench.nvidia import runtime


class Status(int):
    name = "cudaErrorNotReady"


@pytest.fixture
def bindings(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    fake = SimpleNamespace()
    monkeypatch.setattr(runtime, "bindings", lambda: fake)
    return fake


def test_a_function_returns_its_result_or_nothing(bindings: SimpleNamespace) -> None:
    bindings.cudaAdd = lambda a, b: (Status(0), a + b)
    bindings.cudaFree = lambda address: (Status(0),)
    assert runtime.cuda("cudaAdd", 2, 3) == 5
    assert runtime.cuda("cudaFree", 64) is None


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        (2, "the GPU's memory is full (cudaError 2, cudaErrorNotReady)"),
        (35, "no NVIDIA driver was found (cudaError 35, cudaErrorNotReady)"),
        (100, "no NVIDIA GPU was found (cudaError 100, cudaErrorNotReady)"),
        (600, "cudaFail failed (cudaError 600, cudaErrorNotReady)"),
    ],
)
def test_an_error_says_what_failed_with_cudas_name(bindings: SimpleNamespace, code: int, cause: str) -> None:
    bindings.cudaFail = lambda: (Status(code), None)
    with pytest.raises(BackendError) as caught:
        runtime.cuda("cudaFail")
    assert caught.value.cause == cause


@pytest.mark.parametrize("name", [b"NVIDIA H100", "NVIDIA H100"])
def test_a_gpu_has_a_name_and_a_capability(bindings: SimpleNamespace, name: Any) -> None:
    bindings.cudaGetDeviceProperties = lambda index: (Status(0), SimpleNamespace(name=name, major=9, minor=index))
    gpu = runtime.gpu(0)
    assert gpu == runtime.Gpu("NVIDIA H100", (9, 0))
    assert gpu.description == "NVIDIA H100 (compute capability 9.0)"


def test_the_number_of_a_device_is_in_its_name() -> None:
    assert [runtime.index_of(device) for device in ("cuda:0", "cuda:12")] == [0, 12]


@pytest.mark.parametrize(
    ("capability", "precisions"),
    [
        ((6, 1), {"fp32"}),
        ((7, 0), {"fp32", "fp16"}),
        ((7, 5), {"fp32", "fp16", "int8"}),
        ((9, 0), {"fp32", "fp16", "int8", "bf16"}),
    ],
)
def test_tensor_cores_decide_what_is_native(capability: tuple[int, int], precisions: set[str]) -> None:
    assert runtime.native_precisions(capability) == precisions
