"""The sizes of the kernels; a real process is in test_ceilings.py."""

from collections.abc import Callable, Iterator

import pytest

from mbbench.machine import CacheSizes
from mbbench.measure.jobs import roofs
from mbbench.result import Ceilings
from mbbench.spec import Precision, Settings

JOB = roofs.Job(settings=Settings(), cpus=(0,), precisions=("fp32", "bf16", "int8"), caches=CacheSizes(2**19, 2**24))


def measured_ceilings(job: roofs.Job) -> Ceilings:
    reports: list[roofs.Report] = []
    report = roofs.measure(job, (), reports.append)
    assert [earlier.phase for earlier in (*reports, report)] == ["ceilings", "done"]
    assert report.ceilings is not None
    return report.ceilings


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call takes a second, and the kernels of each precision do so many Mult-Adds."""
    work = {"fp32": (100, 300), "bf16": (200, 900), "int8": (50,)}

    def products(precision: Precision, threads: int) -> Iterator[tuple[int, Callable[[], object]]]:
        return ((found, list) for found in work[precision])

    monkeypatch.setattr(roofs, "_products", products)
    monkeypatch.setattr(roofs, "_shortest", lambda call: (call(), 1.0)[1])


@pytest.mark.usefixtures("scripted")
def test_the_fastest_kernel_is_the_roof_and_none_is_below_fp32s() -> None:
    found = measured_ceilings(JOB)
    assert found.mult_adds_per_s == {"fp32": 300, "bf16": 900, "int8": 300}


@pytest.mark.usefixtures("scripted")
def test_bytes_are_those_read_and_written() -> None:
    found = measured_ceilings(JOB)
    assert found.memory_bytes_per_s == 3 * 2 * 2**24  # a sum in place reads two arrays and writes one
    repeats = 2**23 // 2**17
    assert found.cache_bytes_per_s == 2 * 2**17 * repeats  # two arrays of half the cache, copied again and again


@pytest.mark.usefixtures("scripted")
def test_a_precision_without_kernels_has_no_roof(monkeypatch: pytest.MonkeyPatch) -> None:
    real = roofs._products

    def products(precision: Precision, threads: int) -> Iterator[tuple[int, Callable[[], object]]]:
        if precision == "bf16":
            raise RuntimeError("not implemented")
        return real(precision, threads)

    monkeypatch.setattr(roofs, "_products", products)
    assert measured_ceilings(JOB).mult_adds_per_s == {"fp32": 300, "int8": 300}


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_kernels_do_the_work_they_say(precision: Precision) -> None:
    import torch

    with torch.inference_mode():
        for work, kernel in roofs._products(precision, 2):
            output = kernel()
            assert isinstance(output, torch.Tensor)
            depth = round(work / output.numel())
            assert depth in (256, 512)
            assert output.numel() == 2 * depth * depth


def test_no_kernel_of_fp32_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def products(precision: Precision, threads: int) -> Iterator[tuple[int, Callable[[], object]]]:
        raise RuntimeError("not implemented")

    monkeypatch.setattr(roofs, "_products", products)
    with pytest.raises(RuntimeError, match="not implemented"):
        measured_ceilings(JOB)
