"""The curves on a scripted clock: time passes only in calls and sleeps."""

from mbbench.measure.curves import measure_duty_cycle, measure_sustained
from mbbench.result import PausedCalls
from mbbench.testing import FakeClock


def test_windows_show_when_a_chip_slows_down() -> None:
    clock = FakeClock()

    def call() -> None:
        clock.now_ns += 10_000_000 if clock.now_ns < 3_000_000_000 else 20_000_000

    windows = measure_sustained(call, 6.0, clock)
    assert len(windows) == 60
    assert [window.start_s for window in windows[:3]] == [0.0, 0.1, 0.2]
    assert {window.median_ms for window in windows[:29]} == {10.0}
    assert {window.median_ms for window in windows[31:]} == {20.0}
    assert (windows[0].n, windows[-1].n) == (10, 5)


def test_windows_without_the_start_of_a_call_are_left_out() -> None:
    clock = FakeClock()

    def call() -> None:
        clock.now_ns += 250_000_000

    windows = measure_sustained(call, 6.0, clock)
    assert [round(window.start_s, 6) for window in windows[:4]] == [0.0, 0.2, 0.5, 0.7]
    assert len(windows) == 24
    assert {window.n for window in windows} == {1}


def test_each_call_follows_its_pause() -> None:
    clock, slept = FakeClock(), []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.now_ns += round(seconds * 1e9)

    def call() -> None:
        clock.now_ns += 1_000_000 + (500_000 if slept and slept[-1] > 0.05 else 0)

    results = measure_duty_cycle(call, 64.0, clock, sleep)
    assert results == (
        PausedCalls(pause_ms=0, n=30, median_ms=1.0),
        PausedCalls(pause_ms=1.0, n=30, median_ms=1.0),
        PausedCalls(pause_ms=4.0, n=30, median_ms=1.0),
        PausedCalls(pause_ms=16.0, n=30, median_ms=1.0),
        PausedCalls(pause_ms=64.0, n=30, median_ms=1.5),
    )
    assert slept == [0.001] * 30 + [0.004] * 30 + [0.016] * 30 + [0.064] * 30
