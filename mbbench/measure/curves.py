"""How latency changes with time under load, and with the pause before a call."""

from __future__ import annotations

import time
from collections.abc import Callable
from time import perf_counter_ns

from mbbench.measure.latency import Clock
from mbbench.result import Wake, Window
from mbbench.stats import median

_WINDOWS = 60
_STEPS = (0, 1 / 64, 1 / 16, 1 / 4, 1)  # of the longest pause
_CALLS = 30  # after each pause: enough for a median


def sustained(call: Callable[[], object], seconds: float, clock: Clock = perf_counter_ns) -> tuple[Window, ...]:
    """Call without a pause for `seconds`; the median of each of 60 equal stretches of it that holds a call."""
    start = clock()
    length = seconds * 1e9 / _WINDOWS
    found: list[Window] = []
    samples: list[int] = []
    number = 0
    while True:
        before = clock()
        current = int((before - start) / length)
        if current != number and samples:
            found.append(_window(number * length, samples))
            samples = []
        number = current
        if number >= _WINDOWS:
            return tuple(found)
        call()
        samples.append(clock() - before)


def _window(start_ns: float, samples: list[int]) -> Window:
    return Window(start_s=start_ns / 1e9, n=len(samples), median_ms=median(samples) / 1e6)


def duty_cycle(
    call: Callable[[], object],
    longest_ms: float,
    clock: Clock = perf_counter_ns,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[Wake, ...]:
    """Medians of calls that each follow a pause, from none to `longest_ms`."""
    found = []
    for step in _STEPS:
        samples = []
        for _ in range(_CALLS):
            if step:
                sleep(step * longest_ms / 1e3)
            before = clock()
            call()
            samples.append(clock() - before)
        found.append(Wake(pause_ms=step * longest_ms, n=_CALLS, median_ms=median(samples) / 1e6))
    return tuple(found)
