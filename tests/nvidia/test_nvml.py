"""A fake NVML with two GPUs."""

import os
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from mbbench.errors import BackendError
from mbbench.nvidia import nvml, runtime


def fail(*_: object) -> Any:
    raise RuntimeError("Not Supported")


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Fake NVML; a handle is the slot's name. CUDA's device 0 is in the second slot."""
    fake = SimpleNamespace(
        init_v2=lambda: None,
        system_get_driver_version=lambda: "580.159.04",
        device_get_handle_by_pci_bus_id_v2=lambda slot: {"0000:17:00.0": "first", "0000:65:00.0": "second"}[slot],
        device_get_total_energy_consumption=lambda handle: {"first": 9, "second": 4}[handle],
        device_get_compute_running_processes_v3=lambda handle: [
            SimpleNamespace(pid=pid, used_gpu_memory=400_000_000) for pid in (1, os.getpid()) if handle == "second"
        ],
    )
    slots = (b"0000:65:00.0\0".ljust(32), b"0000:17:00.0\0".ljust(32))
    monkeypatch.setattr(
        runtime, "bindings", lambda: SimpleNamespace(cudaDeviceGetPCIBusId=lambda length, index: (0, slots[index]))
    )
    monkeypatch.setitem(sys.modules, "cuda.bindings.nvml", fake)
    return fake


def test_a_board_is_found_by_its_slot(driver: SimpleNamespace) -> None:
    assert [nvml.Board(index).microjoules() for index in (0, 1)] == [4000, 9000]


def test_the_memory_of_this_process_is_the_drivers(driver: SimpleNamespace) -> None:
    assert nvml.Board(0).process_memory_bytes() == 400_000_000
    with pytest.raises(BackendError, match=f"the driver does not list process {os.getpid()} on the GPU"):
        nvml.Board(1).process_memory_bytes()


def test_memory_that_the_driver_does_not_know_is_an_error() -> None:
    assert nvml.memory_of(7, [(6, 1), (7, 400_000_000)]) == 400_000_000
    with pytest.raises(BackendError, match="the driver does not report memory per process"):
        nvml.memory_of(7, [(7, 2**64 - 1)])


@pytest.mark.parametrize(
    ("function", "read", "cause"),
    [
        ("init_v2", lambda: nvml.Board(0), "NVML cannot start (Not Supported)"),
        ("device_get_handle_by_pci_bus_id_v2", lambda: nvml.Board(0), "NVML cannot find the GPU (Not Supported)"),
        (
            "device_get_total_energy_consumption",
            lambda: nvml.Board(0).microjoules(),
            "NVML reports no energy (Not Supported)",
        ),
        (
            "device_get_compute_running_processes_v3",
            lambda: nvml.Board(0).process_memory_bytes(),
            "NVML reports no processes (Not Supported)",
        ),
    ],
)
def test_any_error_of_the_driver_is_a_reason(
    driver: SimpleNamespace, function: str, read: Callable[[], object], cause: str
) -> None:
    setattr(driver, function, fail)
    with pytest.raises(BackendError) as caught:
        read()
    assert caught.value.cause == cause


def test_without_nvml_the_drivers_version_is_cudas(driver: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    assert nvml.driver_version() == "580.159.04"
    monkeypatch.setitem(sys.modules, "cuda.bindings.nvml", None)
    monkeypatch.setattr(runtime, "bindings", lambda: SimpleNamespace(cudaDriverGetVersion=lambda: (0, 13000)))
    assert nvml.driver_version() == "CUDA 13000"


def test_a_missing_binding_names_the_release_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.nvml", None)
    with pytest.raises(BackendError) as caught:
        nvml.Board(0)
    assert caught.value.remedy == "run `pip install -U cuda-bindings` (12.9.6, 13.2 or newer)"
