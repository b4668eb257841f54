"""The roofs of a roofline: the most Mult-Adds and bytes per second that a machine achieves.

Each roof is the fastest call of short kernels from well-tuned libraries: no layer is expected to exceed it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from mbbench.machine import CacheSizes
from mbbench.measure.child import Save
from mbbench.result import Ceilings, Failure
from mbbench.spec import Precision, Settings

_SIZES = (256, 512)  # of square matrices, per thread: small enough to end before a busy machine takes the core away
_SECONDS = 0.1  # per kernel
_FP32_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to measure, and the sizes of the caches on `cpus`."""

    settings: Settings
    cpus: tuple[int, ...]
    precisions: tuple[Precision, ...]  # fp32 first
    caches: CacheSizes


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The report that the child writes."""

    phase: str
    ceilings: Ceilings | None = None
    failure: Failure | None = None


START = Report(phase="start")


def measure(job: Job, spare_cpus: Collection[int], save: Save[Report]) -> Report:
    """Return the machine's ceilings on `job.settings.threads`. Raises `RuntimeError` if PyTorch has no fp32 kernel."""
    save(Report(phase="ceilings"))
    return Report(phase="done", ceilings=_measure_ceilings(job))


def _measure_ceilings(job: Job) -> Ceilings:
    import torch

    threads = job.settings.threads
    torch.set_num_threads(threads)
    with torch.inference_mode():
        mult_adds_per_s: dict[str, float] = {}
        for precision in job.precisions:
            try:
                best = max(mult_adds / _fastest_s(kernel) for mult_adds, kernel in _kernels(precision, threads))
            except (AttributeError, RuntimeError):
                if precision == "fp32":
                    raise
                continue  # PyTorch has no such kernel on this platform
            # A narrower type is never slower than fp32: a runtime can compute in fp32 instead.
            mult_adds_per_s[precision] = max(best, mult_adds_per_s.get("fp32", 0.0))
        return Ceilings(
            threads=threads,
            mult_adds_per_s=mult_adds_per_s,
            memory_bytes_per_s=_bytes_per_s(_elements_beyond(job.caches), threads),
            cache_bytes_per_s=_bytes_per_s(_elements_within(job.caches) * threads, threads),
        )


def _kernels(precision: Precision, threads: int) -> Iterator[tuple[int, Callable[[], object]]]:
    """Yield (Mult-Adds, kernel) for matrix products and 1x1 convolutions."""
    import torch

    for size in _SIZES:
        rows = size * threads
        mult_adds = rows * size * size
        if precision == "int8":
            yield mult_adds, _int8_product(rows, size)
            continue
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
        a, b, out = (torch.ones(n, size, dtype=dtype) for n in (rows, size, rows))
        yield mult_adds, lambda a=a, b=b, out=out: torch.mm(a, b, out=out)  # type: ignore[misc]
        images = torch.ones(1, size, rows // 16, 16, dtype=dtype).to(memory_format=torch.channels_last)
        weights = torch.ones(size, size, 1, 1, dtype=dtype)
        yield mult_adds, lambda x=images, w=weights: torch.nn.functional.conv2d(x, w)  # type: ignore[misc]


def _int8_product(rows: int, size: int) -> Callable[[], object]:
    """Return oneDNN's product of uint8 and int8; `torch._int_mm` takes 40 times as long without VNNI."""
    import torch

    operators: Any = torch.ops.onednn
    inputs = torch.ones(rows, size, dtype=torch.uint8)
    weights = operators.qlinear_prepack(torch.ones(size, size, dtype=torch.int8), [rows, size])
    scales, zeros = torch.ones(size), torch.zeros(size, dtype=torch.int64)
    return lambda: operators.qlinear_pointwise(
        inputs, 1.0, 0, weights, scales, zeros, None, 1.0, 0, torch.uint8, "none", [], ""
    )


def _elements_within(caches: CacheSizes) -> int:
    """Return the elements of each of two arrays that fill half of a core's private cache; other data needs the rest."""
    return caches.core_bytes // 4 // _FP32_BYTES


def _elements_beyond(caches: CacheSizes) -> int:
    """Return the elements of each of two arrays that are together four times as large as all last-level caches."""
    return caches.last_level_bytes * 2 // _FP32_BYTES


def _bytes_per_s(elements: int, threads: int) -> float:
    """Return the highest rate of bytes read and written by a copy, an in-place sum and the C library's copy.

    The C library's copy bypasses the caches where that is faster; PyTorch has no such copy.
    """
    import numpy as np
    import torch

    source, target = torch.ones(elements), torch.ones(elements)
    size = elements * _FP32_BYTES
    sources, targets = (np.array_split(tensor.numpy(), threads) for tensor in (source, target))
    repeats = max(1, 2**23 // size)  # dispatching to the pool takes longer than one copy within a cache

    def copy(number: int) -> None:
        for _ in range(repeats):
            np.copyto(targets[number], sources[number])

    with ThreadPoolExecutor(threads) as pool:
        return max(
            2 * size / _fastest_s(lambda: target.copy_(source)),
            3 * size / _fastest_s(lambda: target.add_(source)),
            2 * size * repeats / _fastest_s(lambda: list(pool.map(copy, range(threads)))),
        )


def _fastest_s(call: Callable[[], object]) -> float:
    """Return the seconds of the fastest call, after an untimed first one."""
    call()
    times: list[float] = []
    end = perf_counter() + _SECONDS
    while not times or perf_counter() < end:
        start = perf_counter()
        call()
        times.append(perf_counter() - start)
    return min(times)
