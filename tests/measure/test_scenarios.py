"""Scenarios on a scripted clock: a request takes 1 ms on one of two streams, and nothing else takes time."""

from __future__ import annotations

import heapq
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from mbbench.backend import Requests
from mbbench.errors import RequirementError
from mbbench.measure import scenarios
from mbbench.result import ScenarioResult
from mbbench.testing import FakeClock, FakeSession

IMAGE = np.zeros((1, 3, 32, 32), np.float32)
Done = Callable[[NDArray[np.float32]], None]


class FakeRequests(Requests):
    """Requests that take `ms` each on one of `streams`; waiting for a request moves the clock to its end."""

    def __init__(self, clock: FakeClock, ms: float = 1.0, streams: int = 2, logit: float = 0.0) -> None:
        self.facts = {"streams": str(streams)}
        self.submitted = 0
        self._clock, self._ms, self._streams, self._logit = clock, ms, streams, logit
        self._ends: list[tuple[int, int, Done | None]] = []

    def submit(self, images: NDArray[np.float32], done: Done | None = None) -> None:
        self._finish(self._clock.now_ns)
        while len(self._ends) >= self._streams:
            self._finish(self._ends[0][0])
        self.submitted += 1
        heapq.heappush(self._ends, (self._clock.now_ns + round(self._ms * 1e6), self.submitted, done))

    def _finish(self, until_ns: int) -> None:
        """Run the callbacks of requests that end by `until_ns`, each with the clock at its end."""
        now_ns = max(self._clock.now_ns, until_ns)
        while self._ends and self._ends[0][0] <= until_ns:
            self._clock.now_ns, _, done = heapq.heappop(self._ends)
            if done is not None:
                done(np.full((1, 10), self._logit, np.float32))
        self._clock.now_ns = now_ns

    def wait(self) -> None:
        while self._ends:
            self._finish(self._ends[0][0])

    def close(self) -> None:
        self.wait()


def sleep_on(clock: FakeClock) -> scenarios.Sleep:
    def sleep(seconds: float) -> None:
        clock.now_ns += round(seconds * 1e9)

    return sleep


def run_server(
    ms: float = 1.0, *, bound_ms: float = 15.0, seconds: float = 5.0
) -> tuple[ScenarioResult | None, str | None]:
    clock = FakeClock()
    requests = FakeRequests(clock, ms)
    return scenarios.run_server(requests, IMAGE, bound_ms=bound_ms, seconds=seconds, clock=clock, sleep=sleep_on(clock))


def test_offline_keeps_every_stream_busy_and_counts_requests_that_end_late() -> None:
    clock = FakeClock()
    result = scenarios.run_offline(FakeRequests(clock), IMAGE, seconds=1.0, clock=clock)
    assert (result.queries, result.seconds) == (2001, 1.001)
    assert result.images_per_s == pytest.approx(2001 / 1.001)
    assert (result.samples_ms, result.p99_ms, result.effective) == ((), None, {"streams": "2"})


def test_offline_counts_images_and_not_requests() -> None:
    clock = FakeClock()
    result = scenarios.run_offline(FakeRequests(clock), np.zeros((16, 3, 32, 32), np.float32), seconds=1.0, clock=clock)
    assert (result.batch, result.queries) == (16, 2001)
    assert result.images_per_s == pytest.approx(16 * 2001 / 1.001)


def test_a_stream_of_queries_ends_when_p99_is_valid_or_after_four_times_the_seconds() -> None:
    clock = FakeClock()
    fast = scenarios.run_stream("multi-stream", FakeSession([1.0], clock), np.zeros((8, 3, 32, 32), np.float32),
                              seconds=0.5, clock=clock)  # fmt: skip
    assert (fast.batch, fast.queries, fast.images_per_s, fast.p50_ms, fast.p99_ms) == (8, 662, 8000.0, 1.0, 1.0)
    slow = scenarios.run_stream("single-stream", FakeSession([100.0], clock), IMAGE, seconds=0.5, clock=clock)
    assert (slow.queries, slow.seconds, slow.p50_ms, slow.p90_ms, slow.p99_ms) == (20, 2.0, 100.0, None, None)


def test_the_servers_rate_is_near_the_capacity_of_two_streams_if_the_bound_is_wide() -> None:
    result, reason = run_server()
    assert result is not None
    assert reason is None
    assert result.arrivals_per_s is not None
    assert 1800 < result.arrivals_per_s <= 2000
    assert result.queries == len(result.samples_ms) == round(result.arrivals_per_s * 5)
    assert (result.bound_ms, result.p99_ms is not None and result.p99_ms <= 15.0) == (15.0, True)


def test_the_servers_rate_counts_completions_over_the_time_they_took() -> None:
    assert scenarios.seconds_to_last_completion([0, 1_000_000, 2_000_000], [500_000, 9_000_000, 1_000_000]) == 0.01
    result, _ = run_server()
    assert result is not None and result.arrivals_per_s is not None
    due_ms = [ns / 1e6 for ns in scenarios.poisson_arrivals(result.arrivals_per_s, result.queries)]
    last_ms = max(due + latency for due, latency in zip(due_ms, result.samples_ms, strict=True))
    assert result.seconds == pytest.approx(last_ms / 1e3)
    assert result.images_per_s == pytest.approx(result.queries / (last_ms / 1e3))
    assert result.seconds > due_ms[-1] / 1e3  # the last arrival is answered later


def test_a_narrower_bound_lowers_the_rate() -> None:
    """At a Poisson arrival every 2.5 ms, 1 in 100 queries finds both streams busy for long."""
    wide, narrow = run_server(bound_ms=15.0)[0], run_server(bound_ms=1.5)[0]
    assert wide is not None
    assert narrow is not None
    assert wide.arrivals_per_s is not None
    assert narrow.arrivals_per_s is not None
    assert narrow.arrivals_per_s < 0.7 * wide.arrivals_per_s
    assert narrow.over_bound is not None
    assert 0 < narrow.over_bound <= 0.01 * narrow.queries


def test_a_bound_below_the_service_time_is_a_reason() -> None:
    assert run_server(bound_ms=0.9) == (None, "p99 exceeds 0.9 ms at 33.1 arrivals per second")


def test_a_network_too_slow_for_a_p99_is_a_reason() -> None:
    assert run_server(100.0) == (None, "a p99 needs 662 queries, which would take at least 35 s")


def test_arrivals_are_a_reproducible_poisson_process() -> None:
    due_ns = scenarios.poisson_arrivals(1000.0, 20_000)
    gaps = np.diff([0, *due_ns])
    assert due_ns == scenarios.poisson_arrivals(1000.0, 20_000)
    assert gaps.mean() == pytest.approx(1e6, rel=0.02)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.02)


def test_latency_counts_from_the_arrival_not_from_the_submission() -> None:
    clock = FakeClock()
    latencies = scenarios._serve(
        FakeRequests(clock, ms=2.0, streams=1), IMAGE, [0, 500_000, 1_000_000], 10**9, 0, clock, sleep_on(clock)
    )
    assert latencies == [2_000_000, 3_500_000, 5_000_000]


def test_a_rate_with_too_many_late_queries_ends_early() -> None:
    clock = FakeClock()
    requests = FakeRequests(clock, ms=2.0, streams=1)
    due_ns = list(range(0, 1_000_000_000, 1_000_000))
    assert scenarios._serve(requests, IMAGE, due_ns, 5_000_000, 3, clock, sleep_on(clock)) is None
    assert requests.submitted < 20


def test_requests_with_other_logits_than_the_session_raise_an_error() -> None:
    clock = FakeClock()
    session = FakeSession([1.0], clock)
    scenarios.require_same_logits(FakeRequests(clock, logit=0.01), session, IMAGE, 0.02)
    with pytest.raises(RequirementError, match=r"concurrent requests return logits that differ by up to 0\.03"):
        scenarios.require_same_logits(FakeRequests(clock, logit=0.03), session, IMAGE, 0.02)
    with pytest.raises(RequirementError):
        scenarios.require_same_logits(FakeRequests(clock, logit=float("nan")), session, IMAGE, 0.02)
