"""The work of the kernels and the choice of the fastest; test_ceilings.py measures in a real process."""

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
    assert [saved.phase for saved in (*reports, report)] == ["ceilings", "done"]
    assert report.ceilings is not None
    return report.ceilings


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call takes a second; the kernels of each precision do the Mult-Adds in `work`."""
    work = {"fp32": (100, 300), "bf16": (200, 900), "int8": (50,)}

    def kernels(precision: Precision, threads: int) -> Iterator[tuple[int, Callable[[], object]]]:
        return ((mult_adds, list) for mult_adds in work[precision])

    monkeypatch.setattr(roofs, "_kernels", kernels)
    monkeypatch.setattr(roofs, "_fastest_s", lambda call: (call(), 1.0)[1])


@pytest.mark.usefixtures("scripted")
def test_the_roof_is_the_fastest_kernel_and_at_least_the_roof_of_fp32() -> None:
    ceilings = measured_ceilings(JOB)
    assert ceilings.mult_adds_per_s == {"fp32": 300, "bf16": 900, "int8": 300}


@pytest.mark.usefixtures("scripted")
def test_bytes_read_and_bytes_written_are_counted() -> None:
    ceilings = measured_ceilings(JOB)
    assert ceilings.memory_bytes_per_s == 3 * 2 * 2**24  # an in-place sum reads two arrays and writes one
    repeats = 2**23 // 2**17
    assert ceilings.cache_bytes_per_s == 2 * 2**17 * repeats  # two arrays in half of the cache, copied repeatedly


@pytest.mark.usefixtures("scripted")
def test_a_precision_without_kernels_has_no_roof(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted_kernels = roofs._kernels

    def kernels(precision: Precision, threads: int) -> Iterator[tuple[int, Callable[[], object]]]:
        if precision == "bf16":
            raise RuntimeError("not implemented")
        return scripted_kernels(precision, threads)

    monkeypatch.setattr(roofs, "_kernels", kernels)
    assert measured_ceilings(JOB).mult_adds_per_s == {"fp32": 300, "int8": 300}


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_kernels_do_the_mult_adds_they_report(precision: Precision) -> None:
    import torch

    with torch.inference_mode():
        for mult_adds, kernel in roofs._kernels(precision, 2):
            output = kernel()
            assert isinstance(output, torch.Tensor)
            depth = round(mult_adds / output.numel())
            assert depth in (256, 512)
            assert output.numel() == 2 * depth * depth


def test_a_missing_fp32_kernel_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def kernels(precision: Precision, threads: int) -> Iterator[tuple[int, Callable[[], object]]]:
        raise RuntimeError("not implemented")

    monkeypatch.setattr(roofs, "_kernels", kernels)
    with pytest.raises(RuntimeError, match="not implemented"):
        measured_ceilings(JOB)
