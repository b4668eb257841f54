import gc
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from mbbench.measure.latency import (
    latency_figures,
    measure_throughput,
    measure_throughputs,
    no_garbage_collection,
    round_sample,
    time_calls,
    timing_limit_s,
    warm_up,
)
from mbbench.result import WarmUp
from mbbench.spec import Settings
from mbbench.testing import FakeClock, FakeSession

WARMED = WarmUp(runs=30, seconds=0.1, steady=True)


def scripted(*latencies_ms: float) -> tuple[Callable[[], object], FakeClock]:
    clock = FakeClock()
    session = FakeSession(latencies_ms, clock)
    images = np.zeros((1, 3, 32, 32), np.float32)
    return lambda: session.run(images), clock


def test_each_call_is_one_sample_in_order() -> None:
    call, clock = scripted(5, 1, 3)
    assert time_calls(call, min_samples=4, min_s=0.001, max_s=10, clock=clock) == [5e6, 1e6, 3e6, 3e6]


def test_timing_continues_until_the_minimum_time() -> None:
    call, clock = scripted(100)
    assert len(time_calls(call, min_samples=3, min_s=1.0, max_s=10, clock=clock)) == 10


def test_timing_ends_at_the_maximum_time() -> None:
    call, clock = scripted(100)
    assert len(time_calls(call, min_samples=662, min_s=0.5, max_s=1.0, clock=clock)) == 10


def test_warm_up_ends_when_three_windows_agree() -> None:
    call, clock = scripted(*[10] * 10, *[5] * 10, *[2] * 10, 1.01)
    assert warm_up(call, max_s=60, clock=clock) == WarmUp(runs=60, seconds=0.2003, steady=True)


def test_warm_up_is_not_steady_if_the_latency_never_settles() -> None:
    call, clock = scripted(*[1.1**i for i in range(200)])
    warmed = warm_up(call, max_s=2.0, clock=clock)
    assert not warmed.steady
    assert warmed.seconds >= 2.0


def test_throughput_counts_images_and_skips_the_first_call() -> None:
    call, clock = scripted(5000, 100)
    throughput = measure_throughput(call, batch=16, seconds=0.95, clock=clock)
    assert (throughput.images, throughput.seconds, throughput.images_per_s) == (160, 1.0, 160.0)


def throughputs_of(
    ms_per_image: dict[int, float], *, batch: int, bulk_batch: int, seconds: float, first_call_ms: float = 0.0
) -> list[tuple[int, int, float]]:
    """Return (batch, images, images a second) of a session with these times per image."""
    clock = FakeClock()

    def call_of(size: int) -> Callable[[], object]:
        first = [True]

        def call() -> None:
            clock.now_ns += round((size * ms_per_image[size] + first_call_ms * first[0]) * 1e6)
            first[0] = False

        return call

    results = measure_throughputs(call_of, batch=batch, bulk_batch=bulk_batch, seconds=seconds, clock=clock)
    return [(result.batch, result.images, round(result.images_per_s, 6)) for result in results]


def test_each_batch_size_has_a_third_of_the_time() -> None:
    rates = throughputs_of({1: 2.0, 4: 1.0, 16: 4.0}, batch=1, bulk_batch=16, seconds=1.92)
    assert rates == [(1, 320, 500.0), (4, 640, 1000.0), (16, 160, 250.0)]


def test_a_slow_session_is_not_measured_at_the_batch_size_in_between() -> None:
    assert throughputs_of({1: 100.0, 16: 100.0}, batch=1, bulk_batch=16, seconds=1.8) == [(1, 6, 10.0), (16, 16, 10.0)]
    compiling = throughputs_of({1: 1.0, 16: 1.0}, batch=1, bulk_batch=16, seconds=1.92, first_call_ms=700.0)
    assert compiling == [(1, 640, 1000.0), (16, 640, 1000.0)]


@pytest.mark.parametrize(
    ("batch", "bulk_batch", "batches"),
    [(1, 8, [1, 4, 8]), (4, 16, [4, 8, 16]), (16, 16, [16]), (32, 16, [16, 32]), (1, 2, [1, 2]), (3, 5, [3, 4, 5])],
)
def test_the_batch_size_in_between_is_a_power_of_two(batch: int, bulk_batch: int, batches: list[int]) -> None:
    times = dict.fromkeys(range(1, 33), 0.5)
    rates = throughputs_of(times, batch=batch, bulk_batch=bulk_batch, seconds=6.0)
    assert [size for size, _, _ in rates] == batches


@pytest.mark.parametrize(
    ("ns", "expected"),
    [
        (0, 0), (1234, 1234), (12_344, 12_340), (12_345, 12_350), (19_994, 19_990), (20_011, 20_020), (49_989, 49_980),
        (50_024, 50_000), (50_025, 50_050), (99_974, 99_950), (99_975, 100_000), (7_123_456_789, 7_125_000_000),
    ],
)  # fmt: skip
def test_a_sample_is_rounded_by_at_most_a_two_thousandth(ns: int, expected: int) -> None:
    assert round_sample(ns) == expected


def test_figures_are_exact() -> None:
    latency, reasons = latency_figures([n * 1_000_000 for n in range(662, 0, -1)], batch=2, warmed=WARMED)
    assert (latency.n, latency.batch, latency.min_ms, latency.median_ms) == (662, 2, 1.0, 331.5)
    assert (latency.p90_ms, latency.p99_ms) == (596.0, 656.0)
    assert latency.samples_ms[:2] == (662.0, 661.0)
    assert reasons == {}


def test_too_few_samples_for_a_percentile_are_a_reason() -> None:
    latency, reasons = latency_figures([1_000_000] * 64, batch=1, warmed=WARMED)
    assert (latency.p90_ms, latency.p99_ms, latency.median_ci95_ms) == (1.0, None, None)
    assert reasons == {
        "latency.p99_ms": "needs 662 samples, has 64",
        "latency.median_ci95_ms": "needs 100 samples, has 64",
    }


def test_garbage_collection_is_off_within_the_block_only() -> None:
    with no_garbage_collection():
        assert not gc.isenabled()
        assert gc.get_freeze_count() > 0
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_garbage_collection_is_on_again_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), no_garbage_collection():
        raise ZeroDivisionError
    assert gc.isenabled()


def test_timing_continues_until_samples_are_enough_and_skips_the_call_after_each_check() -> None:
    call, clock = scripted(*[1] * 8, 50, *[1] * 2, 50, 1)
    checks: list[int] = []

    def enough(samples: Sequence[int]) -> bool:
        checks.append(len(samples))
        return len(samples) >= 12

    samples = time_calls(call, min_samples=8, min_s=0.001, max_s=10, enough=enough, clock=clock)
    assert checks == [8, 10, 12]
    assert samples == [1e6] * 12


@pytest.mark.parametrize(("warm_up_s", "limit_s"), [(0.5, 12.5), (5.0, 8.0), (9.0, 7.5)])
def test_timed_calls_get_what_warm_up_and_throughput_leave_but_at_least_half(warm_up_s: float, limit_s: float) -> None:
    assert timing_limit_s(Settings(max_s=15.0, throughput_s=2.0), warm_up_s) == limit_s


def test_timing_ends_when_samples_are_enough_if_the_minimum_number_is_out_of_reach() -> None:
    call, clock = scripted(100)
    checks: list[int] = []

    def enough(samples: Sequence[int]) -> bool:
        checks.append(len(samples))
        return len(samples) >= 7

    assert len(time_calls(call, min_samples=662, min_s=0.4, max_s=2.0, enough=enough, clock=clock)) == 7
    assert checks == [4, 5, 6, 7]
    assert len(time_calls(call, min_samples=10, min_s=0.4, max_s=2.0, enough=enough, clock=clock)) == 10


def test_timing_ends_at_the_maximum_time_even_if_samples_are_not_enough() -> None:
    call, clock = scripted(100)
    assert len(time_calls(call, min_samples=4, min_s=0.1, max_s=1.0, enough=lambda _: False, clock=clock)) == 7


def test_figures_include_imprecision_outliers_and_drift() -> None:
    stable = [1_000_000 + 1000 * (i % 10) for i in range(400)]
    latency, _ = latency_figures(stable, batch=1, warmed=WARMED)
    assert (latency.imprecise, latency.outliers, latency.drift) == (False, 0, 0.0)
    stepped = [1_000_000] * 200 + [1_200_000] * 200
    latency, _ = latency_figures(stepped, batch=1, warmed=WARMED)
    assert latency.imprecise is True
    assert latency.drift == pytest.approx(0.2)
    latency, _ = latency_figures([*stable, 9_000_000], batch=1, warmed=WARMED)
    assert latency.outliers == 1
    assert max(latency.samples_ms) == 9.0
