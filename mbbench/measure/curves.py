"""How latency changes with time under load, and with the pause before a call."""

from __future__ import annotations

import time
from collections.abc import Callable
from time import perf_counter_ns

from mbbench.measure.latency import Clock
from mbbench.result import PausedCalls, Window
from mbbench.stats import median

_WINDOWS = 60
_PAUSES = (0, 1 / 64, 1 / 16, 1 / 4, 1)  # as fractions of the longest pause
_CALLS_PER_PAUSE = 30  # enough for a median


def measure_sustained(call: Callable[[], object], seconds: float, clock: Clock = perf_counter_ns) -> tuple[Window, ...]:
    """Call back to back for `seconds` and return the median latency of each of 60 equal windows.

    A window in which no call starts is left out.
    """
    start = clock()
    length_ns = seconds * 1e9 / _WINDOWS
    windows: list[Window] = []
    samples: list[int] = []
    number = 0
    while True:
        before = clock()
        current = int((before - start) / length_ns)
        if current != number and samples:
            windows.append(_window(number * length_ns, samples))
            samples = []
        number = current
        if number >= _WINDOWS:
            return tuple(windows)
        call()
        samples.append(clock() - before)


def _window(start_ns: float, samples: list[int]) -> Window:
    return Window(start_s=start_ns / 1e9, n=len(samples), median_ms=median(samples) / 1e6)


def measure_duty_cycle(
    call: Callable[[], object],
    longest_ms: float,
    clock: Clock = perf_counter_ns,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[PausedCalls, ...]:
    """Return the median latency of calls after a pause, for five pauses from 0 to `longest_ms`."""
    results = []
    for fraction in _PAUSES:
        samples = []
        for _ in range(_CALLS_PER_PAUSE):
            if fraction:
                sleep(fraction * longest_ms / 1e3)
            before = clock()
            call()
            samples.append(clock() - before)
        results.append(PausedCalls(pause_ms=fraction * longest_ms, n=_CALLS_PER_PAUSE, median_ms=median(samples) / 1e6))
    return tuple(results)
