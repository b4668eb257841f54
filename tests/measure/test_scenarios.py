"""On a scripted clock: a request takes 1 ms on one of two streams, and nothing else takes time."""

from __future__ import annotations

import heapq
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from mbbench.backend import Requests
from mbbench.errors import RequirementError
from mbbench.measure import scenarios
from mbbench.result import Served
from mbbench.testing import FakeClock, FakeSession

IMAGE = np.zeros((1, 3, 32, 32), np.float32)
Done = Callable[[NDArray[np.float32]], None]


class FakeRequests(Requests):
    """Requests that take `ms` each on one of `streams`; the clock moves to a request's end when one is waited for."""

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
        """Callbacks come at their time, whatever the clock says meanwhile."""
        now = max(self._clock.now_ns, until_ns)
        while self._ends and self._ends[0][0] <= until_ns:
            self._clock.now_ns, _, done = heapq.heappop(self._ends)
            if done is not None:
                done(np.full((1, 10), self._logit, np.float32))
        self._clock.now_ns = now

    def wait(self) -> None:
        while self._ends:
            self._finish(self._ends[0][0])

    def close(self) -> None:
        self.wait()


def sleeping(clock: FakeClock) -> scenarios.Sleep:
    def sleep(seconds: float) -> None:
        clock.now_ns += round(seconds * 1e9)

    return sleep


def serve(ms: float = 1.0, *, bound_ms: float = 15.0, seconds: float = 5.0) -> tuple[Served | None, str | None]:
    clock = FakeClock()
    requests = FakeRequests(clock, ms)
    return scenarios.server(requests, IMAGE, bound_ms=bound_ms, seconds=seconds, clock=clock, sleep=sleeping(clock))


def test_offline_keeps_every_stream_busy_and_counts_what_ends_late() -> None:
    clock = FakeClock()
    found = scenarios.offline(FakeRequests(clock), IMAGE, seconds=1.0, clock=clock)
    assert (found.queries, found.seconds) == (2001, 1.001)
    assert found.images_per_s == pytest.approx(2001 / 1.001)
    assert (found.samples_ms, found.p99_ms, found.effective) == ((), None, {"streams": "2"})


def test_offline_counts_images_and_not_requests() -> None:
    clock = FakeClock()
    found = scenarios.offline(FakeRequests(clock), np.zeros((16, 3, 32, 32), np.float32), seconds=1.0, clock=clock)
    assert (found.batch, found.queries) == (16, 2001)
    assert found.images_per_s == pytest.approx(16 * 2001 / 1.001)


def test_a_stream_of_queries_goes_on_until_a_p99_is_valid_or_four_times_as_long() -> None:
    clock = FakeClock()
    fast = scenarios.streamed("multi-stream", FakeSession([1.0], clock), np.zeros((8, 3, 32, 32), np.float32),
                              seconds=0.5, clock=clock)  # fmt: skip
    assert (fast.batch, fast.queries, fast.images_per_s, fast.p50_ms, fast.p99_ms) == (8, 662, 8000.0, 1.0, 1.0)
    slow = scenarios.streamed("single-stream", FakeSession([100.0], clock), IMAGE, seconds=0.5, clock=clock)
    assert (slow.queries, slow.seconds, slow.p50_ms, slow.p90_ms, slow.p99_ms) == (20, 2.0, 100.0, None, None)


def test_the_servers_rate_is_near_what_two_streams_can_do_where_the_bound_is_wide() -> None:
    found, reason = serve()
    assert found is not None
    assert reason is None
    assert found.arrivals_per_s is not None
    assert 1800 < found.arrivals_per_s <= 2000
    assert found.queries == len(found.samples_ms) == round(found.arrivals_per_s * 5)
    assert (found.bound_ms, found.p99_ms is not None and found.p99_ms <= 15.0) == (15.0, True)


def test_a_narrower_bound_lowers_the_rate() -> None:
    """Of two streams with a Poisson arrival each 2.5 ms, 1 in 100 queries finds both busy for long."""
    wide, narrow = serve(bound_ms=15.0)[0], serve(bound_ms=1.5)[0]
    assert wide is not None
    assert narrow is not None
    assert wide.arrivals_per_s is not None
    assert narrow.arrivals_per_s is not None
    assert narrow.arrivals_per_s < 0.7 * wide.arrivals_per_s
    assert narrow.over_bound is not None
    assert 0 < narrow.over_bound <= 0.01 * narrow.queries


def test_a_bound_below_the_service_time_has_a_reason() -> None:
    assert serve(bound_ms=0.9) == (None, "p99 exceeds 0.9 ms at 33.1 arrivals a second")


def test_a_network_too_slow_for_a_p99_is_not_asked_for_long() -> None:
    assert serve(100.0) == (None, "a p99 needs 662 queries, which take 35 s at best")


def test_arrivals_are_poissons_and_the_same_every_time() -> None:
    due = scenarios.arrivals(1000.0, 20_000)
    gaps = np.diff([0, *due])
    assert due == scenarios.arrivals(1000.0, 20_000)
    assert gaps.mean() == pytest.approx(1e6, rel=0.02)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.02)


def test_latency_counts_from_the_arrival_and_not_from_the_submission() -> None:
    clock = FakeClock()
    latencies = scenarios._arrive(
        FakeRequests(clock, ms=2.0, streams=1), IMAGE, [0, 500_000, 1_000_000], 10**9, 0, clock, sleeping(clock)
    )
    assert latencies == [2_000_000, 3_500_000, 5_000_000]


def test_a_rate_that_cannot_hold_is_given_up_early() -> None:
    clock = FakeClock()
    requests = FakeRequests(clock, ms=2.0, streams=1)
    due = list(range(0, 1_000_000_000, 1_000_000))
    assert scenarios._arrive(requests, IMAGE, due, 5_000_000, 3, clock, sleeping(clock)) is None
    assert requests.submitted < 20


def test_requests_that_answer_otherwise_than_the_session_are_refused() -> None:
    clock = FakeClock()
    session = FakeSession([1.0], clock)
    scenarios.require_same(FakeRequests(clock, logit=0.01), session, IMAGE, 0.02)
    with pytest.raises(RequirementError, match=r"requests under way at once give logits that differ by up to 0\.03"):
        scenarios.require_same(FakeRequests(clock, logit=0.03), session, IMAGE, 0.02)
    with pytest.raises(RequirementError):
        scenarios.require_same(FakeRequests(clock, logit=float("nan")), session, IMAGE, 0.02)
