"""The timed loops: nothing allocates, prints or collects garbage between two readings of the clock."""

from __future__ import annotations

import gc
import math
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter_ns

from mbbench.result import Latency, Throughput, WarmUp
from mbbench.spec import Settings
from mbbench.stats import count_outliers, drift, is_precise, median, median_interval, percentile, samples_needed

_WINDOW = 10  # runs in a window of the warm-up
_SETTLED = 0.02  # the latency has settled when the medians of three windows differ by at most this share
_RESOLUTION = 1000  # a sample is rounded in steps of at most 1/1000 of its value

Clock = Callable[[], int]


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Collect garbage once, then switch collection off until the end of the block."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def warm_up(call: Callable[[], object], *, max_s: float, clock: Clock = perf_counter_ns) -> WarmUp:
    """Call until the medians of three successive windows agree, or until `max_s` is over (then `steady` is False)."""
    medians: list[float] = []
    window: list[float] = []
    runs = 0
    start = clock()
    while True:
        before = clock()
        call()
        after = clock()
        runs += 1
        window.append(after - before)
        if len(window) == _WINDOW:
            medians.append(median(window))
            window.clear()
            last = medians[-3:]
            if len(last) == 3 and max(last) <= min(last) * (1 + _SETTLED):
                return WarmUp(runs=runs, seconds=(after - start) / 1e9, steady=True)
        if after - start >= max_s * 1e9:
            return WarmUp(runs=runs, seconds=(after - start) / 1e9, steady=False)


def timing_limit_s(settings: Settings, warm_up_s: float) -> float:
    """Return the longest time of timed calls: what warm-up and throughput leave of `max_s`, but at least half of it."""
    return max(settings.max_s - warm_up_s - settings.throughput_s, settings.max_s / 2, settings.min_s)


def time_calls(
    call: Callable[[], object],
    *,
    min_samples: int,
    min_s: float,
    max_s: float,
    enough: Callable[[Sequence[int]], bool] | None = None,
    clock: Clock = perf_counter_ns,
) -> list[int]:
    """Call until `min_samples` and `min_s` are reached and `enough` agrees, or `max_s` is over; return nanoseconds.

    If `enough` returns False, it is called again after a quarter more samples. The first call after each check is not
    counted, because its caches are cold. `enough` alone decides if `max_s` is too short for `min_samples`: a percentile
    that needs them is out of reach, and the time would buy nothing.
    """
    samples = array("q")  # a list would keep an object for each sample
    start = clock()
    earliest_end, latest_end = start + min_s * 1e9, start + max_s * 1e9
    samples_to_check: int | None = None
    while True:
        before = clock()
        call()
        after = clock()
        samples.append(after - before)
        if after >= latest_end:
            return samples.tolist()
        if after < earliest_end:
            continue
        if samples_to_check is None:
            reachable = len(samples) * (latest_end - start) / max(after - start, 1)
            samples_to_check = min_samples if enough is None or reachable >= min_samples else len(samples)
        if len(samples) >= samples_to_check:
            if enough is None or enough(samples):
                return samples.tolist()
            samples_to_check = len(samples) * 5 // 4
            call()


def time_pairs(
    first: Callable[[], object],
    second: Callable[[], object],
    *,
    warm_pairs: int,
    min_pairs: int,
    seconds: float,
    clock: Clock = perf_counter_ns,
) -> tuple[list[int], list[int]]:
    """Alternate two calls for `seconds`, at least `min_pairs` times, after `warm_pairs` untimed ones.

    Returns the nanoseconds of either. Every other pair runs in reverse order, so that what a call leaves in the caches
    affects both alike.
    """
    first_ns: list[int] = []
    second_ns: list[int] = []
    for _ in range(warm_pairs):
        first()
        second()
    deadline = clock() + seconds * 1e9
    while True:
        start = clock()
        first()
        middle = clock()
        second()
        end = clock()
        first_ns.append(middle - start)
        second_ns.append(end - middle)
        start = clock()
        second()
        middle = clock()
        first()
        end = clock()
        second_ns.append(middle - start)
        first_ns.append(end - middle)
        if end >= deadline and len(first_ns) >= min_pairs:
            return first_ns, second_ns


def measure_throughput(
    call: Callable[[], object], *, batch: int, seconds: float, clock: Clock = perf_counter_ns
) -> Throughput:
    """Count the images of back-to-back calls for at least `seconds`.

    A first, untimed call lets the session prepare for this batch size.
    """
    call()
    calls = 0
    start = clock()
    while True:
        call()
        calls += 1
        elapsed = (clock() - start) / 1e9
        if elapsed >= seconds:
            return Throughput(batch=batch, images=calls * batch, seconds=elapsed, images_per_s=calls * batch / elapsed)


def measure_throughputs(
    call_of: Callable[[int], Callable[[], object]],
    *,
    batch: int,
    bulk_batch: int,
    seconds: float,
    clock: Clock = perf_counter_ns,
) -> tuple[Throughput, ...]:
    """Return the throughput at `batch`, at `bulk_batch` and at a power of two in between, in ascending order.

    Each takes a third of `seconds`. The batch size in between is left out if the others took all of `seconds`, as on
    a slow network or a runtime that compiles for each batch size. `call_of` returns the function that calls the
    session with a batch of that size.
    """
    start = clock()
    results: dict[int, Throughput] = {}

    def measure(size: int) -> None:
        results[size] = measure_throughput(call_of(size), batch=size, seconds=seconds / 3, clock=clock)

    for size in dict.fromkeys((batch, bulk_batch)):
        measure(size)
    middle = 2 ** round(math.log2(batch * bulk_batch) / 2)
    if min(results) < middle < max(results) and clock() - start < seconds * 1e9:
        measure(middle)
    return tuple(results[size] for size in sorted(results))


def round_sample(ns: int) -> int:
    """Round to a multiple of 1, 2 or 5 units of the fourth digit: the largest step of at most a thousandth of `ns`.

    The error, at most 0.05 %, is below the noise; the digits cut off would be half of a stored record.
    """
    digit: int = 10 ** max(len(str(ns)) - 4, 0)
    step = digit * next((factor for factor in (5, 2) if factor * digit * _RESOLUTION <= ns), 1)
    return (ns + step // 2) // step * step


def latency_figures(samples_ns: list[int], *, batch: int, warmed: WarmUp) -> tuple[Latency, dict[str, str]]:
    """Return the figures of a latency phase, and the reason for each missing figure."""
    samples_ms = tuple(ns / 1e6 for ns in samples_ns)
    reasons: dict[str, str] = {}

    def valid_percentile(name: str, q: float) -> float | None:
        if len(samples_ms) >= samples_needed(q):
            return percentile(samples_ms, q)
        reasons[f"latency.{name}"] = f"needs {samples_needed(q)} samples, has {len(samples_ms)}"
        return None

    interval = median_interval(samples_ms)
    if interval is None:
        reasons["latency.median_ci95_ms"] = f"needs 100 samples, has {len(samples_ms)}"
    latency = Latency(
        batch=batch,
        warm_up=warmed,
        samples_ms=samples_ms,
        n=len(samples_ms),
        min_ms=min(samples_ms),
        median_ms=median(samples_ms),
        median_ci95_ms=interval,
        p90_ms=valid_percentile("p90_ms", 0.90),
        p99_ms=valid_percentile("p99_ms", 0.99),
        imprecise=not is_precise(samples_ms),
        outliers=count_outliers(samples_ms),
        drift=drift(samples_ms),
    )
    return latency, reasons
