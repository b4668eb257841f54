"""The timed loops. Nothing in them allocates, prints or collects garbage between two readings of the clock."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter_ns

from mbbench.result import Latency, Throughput, WarmUp
from mbbench.stats import drift, is_precise, median, median_interval, outliers, percentile, samples_needed

_WINDOW = 10  # runs whose median is compared with the window before
_FINEST = 1000  # a sample is kept in steps of at most this part of it
_SETTLED = 0.02  # three windows' medians within this share of each other: the latency has settled

Clock = Callable[[], int]


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def warm_up(call: Callable[[], object], *, max_s: float, clock: Clock = perf_counter_ns) -> WarmUp:
    """Call until three successive windows agree, or until `max_s` is over (then `steady` is False)."""
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


def time_calls(
    call: Callable[[], object],
    *,
    min_samples: int,
    min_s: float,
    max_s: float,
    enough: Callable[[list[int]], bool] = lambda _: True,
    clock: Clock = perf_counter_ns,
) -> list[int]:
    """Nanoseconds of each call, until `min_samples` and `min_s` are reached and they are `enough`, or `max_s` is over.

    `enough` is asked again when a quarter more samples have come, in time that is not measured; the call after it finds
    cold caches and is not counted.
    """
    samples: list[int] = []
    start = clock()
    soonest, latest = start + min_s * 1e9, start + max_s * 1e9
    wanted = min_samples
    while True:
        before = clock()
        call()
        after = clock()
        samples.append(after - before)
        if after >= latest:
            return samples
        if after >= soonest and len(samples) >= wanted:
            if enough(samples):
                return samples
            wanted = len(samples) * 5 // 4
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
    """Nanoseconds of calls in turn, after `warm_pairs` untimed ones, for `seconds` and at least `min_pairs`.

    Every other pair is taken the other way round, so that what one call leaves behind meets both alike.
    """
    own: list[int] = []
    other: list[int] = []
    for _ in range(warm_pairs):
        first()
        second()
    end = clock() + seconds * 1e9
    while True:
        started = clock()
        first()
        turned = clock()
        second()
        ended = clock()
        own.append(turned - started)
        other.append(ended - turned)
        started = clock()
        second()
        turned = clock()
        first()
        ended = clock()
        other.append(turned - started)
        own.append(ended - turned)
        if ended >= end and len(own) >= min_pairs:
            return own, other


def count_images(
    call: Callable[[], object], *, batch: int, seconds: float, clock: Clock = perf_counter_ns
) -> Throughput:
    """Back-to-back calls for at least `seconds`; the first call, untimed, lets the session prepare for this batch."""
    call()
    calls = 0
    start = clock()
    while True:
        call()
        calls += 1
        elapsed = (clock() - start) / 1e9
        if elapsed >= seconds:
            return Throughput(batch=batch, images=calls * batch, seconds=elapsed, images_per_s=calls * batch / elapsed)


def rounded(ns: int) -> int:
    """To the next multiple of a 1, 2 or 5 of its fourth digit, the largest that is at most a thousandth of it.

    What that cuts, 0.05 % at most, is noise, and would make half of a record.
    """
    digit: int = 10 ** max(len(str(ns)) - 4, 0)
    step = digit * next((factor for factor in (5, 2) if factor * digit * _FINEST <= ns), 1)
    return (ns + step // 2) // step * step


def summarize(samples_ns: list[int], *, batch: int, warmed: WarmUp) -> tuple[Latency, dict[str, str]]:
    """The figures of a latency phase, and the reasons of those that cannot be given."""
    samples_ms = tuple(ns / 1e6 for ns in samples_ns)
    reasons: dict[str, str] = {}

    def valid(name: str, q: float) -> float | None:
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
        p90_ms=valid("p90_ms", 0.90),
        p99_ms=valid("p99_ms", 0.99),
        imprecise=not is_precise(samples_ms),
        outliers=outliers(samples_ms),
        drift=drift(samples_ms),
    )
    return latency, reasons
