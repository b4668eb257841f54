"""The child process that finds the most a machine can do: `python -m mbbench.measure.roofs JOB OUT`.

Short kernels of well-tuned libraries, each as fast as its fastest call: a roof is what no layer gets beyond.
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

_SIZES = (256, 512)  # of square matrices, for each thread: fast before a busy machine takes the core away
_SECONDS = 0.1  # for each kernel
_FP32_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    settings: Settings
    cpus: tuple[int, ...]
    precisions: tuple[Precision, ...]  # fp32 first
    caches: CacheSizes


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    phase: str
    ceilings: Ceilings | None = None
    failure: Failure | None = None


START = Report(phase="start")


def measure(job: Job, spare_cpus: Collection[int], save: Save[Report]) -> Report:
    """Return the machine's ceilings on `job.settings.threads`. Raises `RuntimeError` if PyTorch has no fp32 kernel."""
    save(Report(phase="ceilings"))
    return Report(phase="done", ceilings=_ceilings(job))


def _ceilings(job: Job) -> Ceilings:
    import torch

    threads = job.settings.threads
    torch.set_num_threads(threads)
    with torch.inference_mode():
        found: dict[str, float] = {}
        for precision in job.precisions:
            try:
                best = max(work / _shortest(kernel) for work, kernel in _products(precision, threads))
            except (AttributeError, RuntimeError):
                if precision == "fp32":
                    raise
                continue  # PyTorch has no such kernel on this platform
            # What fp32 can do a narrower type can too: in fp32.
            found[precision] = max(best, found.get("fp32", 0.0))
        return Ceilings(
            threads=threads,
            mult_adds_per_s=found,
            memory_bytes_per_s=_bytes_per_s(_elements_beyond(job.caches), threads),
            cache_bytes_per_s=_bytes_per_s(_elements_within(job.caches) * threads, threads),
        )


def _products(precision: Precision, threads: int) -> Iterator[tuple[int, Callable[[], object]]]:
    """Matrix products and 1x1 convolutions, with their Mult-Adds."""
    import torch

    for size in _SIZES:
        rows = size * threads
        work = rows * size * size
        if precision == "int8":
            yield work, _quantized(rows, size)
            continue
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
        a, b, out = (torch.ones(n, size, dtype=dtype) for n in (rows, size, rows))
        yield work, lambda a=a, b=b, out=out: torch.mm(a, b, out=out)  # type: ignore[misc]
        images = torch.ones(1, size, rows // 16, 16, dtype=dtype).to(memory_format=torch.channels_last)
        kernels = torch.ones(size, size, 1, 1, dtype=dtype)
        yield work, lambda x=images, w=kernels: torch.nn.functional.conv2d(x, w)  # type: ignore[misc]


def _quantized(rows: int, size: int) -> Callable[[], object]:
    """oneDNN's product of uint8 and int8; `torch._int_mm` takes thirty times as long where there is no VNNI."""
    import torch

    operators: Any = torch.ops.onednn
    inputs = torch.ones(rows, size, dtype=torch.uint8)
    weights = operators.qlinear_prepack(torch.ones(size, size, dtype=torch.int8), [rows, size])
    scales, zeros = torch.ones(size), torch.zeros(size, dtype=torch.int64)
    return lambda: operators.qlinear_pointwise(
        inputs, 1.0, 0, weights, scales, zeros, None, 1.0, 0, torch.uint8, "none", [], ""
    )


def _elements_within(caches: CacheSizes) -> int:
    """Of two arrays that fill half of a core's own cache: the other half is left for what else it holds."""
    return caches.core_bytes // 4 // _FP32_BYTES


def _elements_beyond(caches: CacheSizes) -> int:
    """Of two arrays that are together four times as large as all last-level caches."""
    return caches.last_level_bytes * 2 // _FP32_BYTES


def _bytes_per_s(elements: int, threads: int) -> float:
    """The most bytes a second, read and written, of a copy, a sum in place and the C library's copy.

    The last goes around the caches where that is faster, and PyTorch has none like it.
    """
    import numpy as np
    import torch

    source, target = torch.ones(elements), torch.ones(elements)
    size = elements * _FP32_BYTES
    sources, targets = (np.array_split(tensor.numpy(), threads) for tensor in (source, target))
    repeats = max(1, 2**23 // size)  # the pool takes longer than a copy within a cache

    def copy(number: int) -> None:
        for _ in range(repeats):
            np.copyto(targets[number], sources[number])

    with ThreadPoolExecutor(threads) as pool:
        return max(
            2 * size / _shortest(lambda: target.copy_(source)),
            3 * size / _shortest(lambda: target.add_(source)),
            2 * size * repeats / _shortest(lambda: list(pool.map(copy, range(threads)))),
        )


def _shortest(call: Callable[[], object]) -> float:
    """Seconds of the fastest call; the first is not timed."""
    call()
    times: list[float] = []
    end = perf_counter() + _SECONDS
    while not times or perf_counter() < end:
        start = perf_counter()
        call()
        times.append(perf_counter() - start)
    return min(times)
