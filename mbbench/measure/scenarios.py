"""How many images a second a runtime answers, asked in the ways of MLPerf Inference.

Reddi et al., "MLPerf Inference Benchmark" (2020), section IV; the rules for percentiles are LoadGen's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from time import perf_counter_ns
from typing import TYPE_CHECKING

from mbbench.backend import Requests, Session
from mbbench.errors import RequirementError
from mbbench.measure.latency import Clock, rounded, time_calls
from mbbench.result import Served
from mbbench.spec import Scenario
from mbbench.stats import may_exceed, percentile, samples_needed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MULTI = 8  # images in a query of multi-stream: MLPerf's
_QUANTILE = 0.99
_STEP = 0.02  # the server's rate is known to within this share
_PROBE = 5  # a probe takes this part of the time of the last, long run
_PATIENCE = 4  # a run of more than so many times its length is not begun
_TRIES = 8  # to confirm a rate, each lower by two steps
_CONFIRMED = 3000  # queries that confirm a rate, if there is time: of so many 0.6 % may be late
_SEED = 20170417

Sleep = Callable[[float], None]


def streamed(
    scenario: Scenario,
    session: Session,
    images: NDArray[np.float32],
    *,
    seconds: float,
    clock: Clock = perf_counter_ns,
) -> Served:
    """One query of `images` after the other, for `seconds`, and longer for a p99 unless that takes long."""
    session.run(images)  # lets the session prepare for this batch
    samples = time_calls(
        lambda: session.run(images),
        min_samples=samples_needed(_QUANTILE),
        min_s=seconds,
        max_s=_PATIENCE * seconds,
        clock=clock,
    )
    kept = [rounded(ns) for ns in samples]
    return summarize(scenario, kept, batch=len(images), seconds=sum(samples) / 1e9)


def offline(
    requests: Requests, images: NDArray[np.float32], *, seconds: float, clock: Clock = perf_counter_ns
) -> Served:
    """Submit `images` over and over for `seconds`, once the runtime is busy; what ends after that counts too."""
    _keep_busy(requests, images, seconds / _PROBE, clock)  # to warm up
    count, elapsed = _keep_busy(requests, images, seconds, clock)
    return Served(
        scenario="offline",
        batch=len(images),
        queries=count,
        seconds=elapsed,
        images_per_s=count * len(images) / elapsed,
        effective=dict(requests.facts),
    )


def _keep_busy(requests: Requests, images: NDArray[np.float32], seconds: float, clock: Clock) -> tuple[int, float]:
    """How many were submitted, and the seconds until the last had ended."""
    count = 0
    start = clock()
    while clock() - start < seconds * 1e9:
        requests.submit(images)
        count += 1
    requests.wait()
    return count, (clock() - start) / 1e9


def server(
    requests: Requests,
    image: NDArray[np.float32],
    *,
    bound_ms: float,
    seconds: float,
    clock: Clock = perf_counter_ns,
    sleep: Sleep = time.sleep,
) -> tuple[Served | None, str | None]:
    """The largest rate of random arrivals at which p99 keeps the bound, or why none is known.

    Short runs, each judged by its own share of late queries, bisect between nothing and what offline comes to. A long
    one confirms the rate that they find, by LoadGen's rule; what does not hold there is lowered.
    """
    capacity = offline(requests, image, seconds=seconds / _PROBE, clock=clock).images_per_s
    fewest = samples_needed(_QUANTILE)
    slowest = fewest / (_PATIENCE * seconds)
    if capacity < slowest:
        return None, f"a p99 needs {fewest} queries, which take {fewest / capacity:.0f} s at best"

    def run(rate: float, count: int, allowed: int) -> Served | None:
        """What comes of `count` arrivals at `rate`; None if more than `allowed` are late."""
        bound_ns = round(bound_ms * 1e6)
        latencies = _arrive(requests, image, arrivals(rate, count), bound_ns, allowed, clock, sleep)
        if latencies is None:
            return None
        kept = [rounded(ns) for ns in latencies]
        found = summarize("server", kept, batch=1, seconds=count / rate, bound_ms=bound_ms)
        return replace(found, arrivals_per_s=rate, effective=dict(requests.facts))

    low, high = 0.0, capacity
    while high - low > _STEP * high and high > slowest:
        middle = (low + high) / 2
        count = max(fewest, round(middle * seconds / _PROBE))
        held = run(middle, count, int(count * (1 - _QUANTILE))) is not None
        low, high = (middle, high) if held else (low, middle)
    for step in range(_TRIES):
        rate = low * (1 - 2 * _STEP) ** step
        if rate <= slowest:
            break
        count = max(fewest, round(rate * seconds), round(min(_CONFIRMED, rate * _PATIENCE * seconds)))
        if (found := run(rate, count, may_exceed(count, _QUANTILE))) is not None:
            return found, None
    return None, f"p99 exceeds {bound_ms:g} ms at {max(low, slowest):.3g} arrivals a second"


def require_same(requests: Requests, session: Session, images: NDArray[np.float32], tolerance: float) -> None:
    """Raises `RequirementError` if the requests' logits of `images` are not the session's, but for `tolerance`."""
    import numpy as np

    answers: list[NDArray[np.float32]] = []
    requests.submit(images, lambda logits: answers.append(logits.copy()))
    requests.wait()
    error = float(np.abs(answers[0] - session.run(images)).max())
    if not error <= tolerance:
        raise RequirementError(
            f"requests under way at once give logits that differ by up to {error:.3g} (allowed {tolerance:.3g})",
            "try --streams 1, or another version of the runtime",
        )


def arrivals(per_s: float, count: int) -> list[int]:
    """When `count` queries of a Poisson process come, in nanoseconds from its start; the same ones every time."""
    import numpy as np

    gaps = np.random.default_rng(_SEED).exponential(1e9 / per_s, count)
    times: list[int] = gaps.cumsum().astype(np.int64).tolist()
    return times


def _arrive(
    requests: Requests,
    image: NDArray[np.float32],
    due: Sequence[int],
    bound_ns: int,
    allowed: int,
    clock: Clock,
    sleep: Sleep,
) -> list[int] | None:
    """The latency of each query from when it was `due`; None once more than `allowed` are over the bound."""
    latencies = [0] * len(due)
    late: list[int] = []
    start = clock()

    def done(number: int, _: object) -> None:
        latencies[number] = clock() - start - due[number]
        if latencies[number] > bound_ns:
            late.append(number)

    for number, time_ns in enumerate(due):
        ahead = start + time_ns - clock()
        if ahead > 0:
            sleep(ahead / 1e9)
        requests.submit(image, partial(done, number))
        if len(late) > allowed:
            break
    requests.wait()
    return None if len(late) > allowed else latencies


def summarize(
    scenario: Scenario, samples_ns: Sequence[int], *, batch: int, seconds: float, bound_ms: float | None = None
) -> Served:
    """The figures of queries whose latencies are known; a percentile that the samples do not suffice for is None."""
    samples_ms = tuple(ns / 1e6 for ns in samples_ns)

    def valid(q: float) -> float | None:
        return percentile(samples_ms, q) if len(samples_ms) >= samples_needed(q) else None

    return Served(
        scenario=scenario,
        batch=batch,
        queries=len(samples_ms),
        seconds=seconds,
        images_per_s=len(samples_ms) * batch / seconds,
        samples_ms=samples_ms,
        p50_ms=valid(0.5),
        p90_ms=valid(0.9),
        p99_ms=valid(_QUANTILE),
        bound_ms=bound_ms,
        over_bound=None if bound_ms is None else sum(ms > bound_ms for ms in samples_ms),
    )
