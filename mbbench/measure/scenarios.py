"""The scenarios of MLPerf Inference: how many images per second a runtime serves under each pattern of queries.

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
from mbbench.measure.latency import Clock, round_sample, time_calls
from mbbench.result import ScenarioResult
from mbbench.spec import Scenario
from mbbench.stats import allowed_excesses, percentile, samples_needed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MULTI_STREAM_IMAGES = 8  # in a query of multi-stream, as in MLPerf
_QUANTILE = 0.99
_RATE_PRECISION = 0.02  # the search for the server's rate ends when it is known to within this share
_PROBE_FRACTION = 5  # a probe takes 1/5 of the time of the confirming run
_MAX_TIMES = 4  # a run may take at most this many times `seconds`
_TRIES = 8  # to confirm a rate, each at a rate 4 % below the last
_CONFIRMING_QUERIES = 3000  # to confirm a rate, if there is time; 0.6 % of them may be late
_SEED = 20170417

Sleep = Callable[[float], None]


def run_stream(
    scenario: Scenario,
    session: Session,
    images: NDArray[np.float32],
    *,
    seconds: float,
    clock: Clock = perf_counter_ns,
) -> ScenarioResult:
    """Run queries of `images` one at a time for `seconds`, or longer (at most four times) for a valid p99."""
    session.run(images)  # lets the session prepare for this batch size
    samples_ns = time_calls(
        lambda: session.run(images),
        min_samples=samples_needed(_QUANTILE),
        min_s=seconds,
        max_s=_MAX_TIMES * seconds,
        clock=clock,
    )
    rounded_ns = [round_sample(ns) for ns in samples_ns]
    return scenario_figures(scenario, rounded_ns, batch=len(images), seconds=sum(samples_ns) / 1e9)


def run_offline(
    requests: Requests, images: NDArray[np.float32], *, seconds: float, clock: Clock = perf_counter_ns
) -> ScenarioResult:
    """Submit `images` again and again for `seconds`, after a warm-up; requests that end after that count too."""
    _keep_busy(requests, images, seconds / _PROBE_FRACTION, clock)  # warm-up
    count, elapsed = _keep_busy(requests, images, seconds, clock)
    return ScenarioResult(
        scenario="offline",
        batch=len(images),
        queries=count,
        seconds=elapsed,
        images_per_s=count * len(images) / elapsed,
        effective=dict(requests.facts),
    )


def _keep_busy(requests: Requests, images: NDArray[np.float32], seconds: float, clock: Clock) -> tuple[int, float]:
    """Submit requests for `seconds`; return their number, and the seconds until the last one ended."""
    count = 0
    start = clock()
    while clock() - start < seconds * 1e9:
        requests.submit(images)
        count += 1
    requests.wait()
    return count, (clock() - start) / 1e9


def run_server(
    requests: Requests,
    image: NDArray[np.float32],
    *,
    bound_ms: float,
    seconds: float,
    clock: Clock = perf_counter_ns,
    sleep: Sleep = time.sleep,
) -> tuple[ScenarioResult | None, str | None]:
    """Return the result at the highest rate of random arrivals with a p99 within `bound_ms`, or None and the reason.

    Short runs, each judged by its share of late queries, bisect between 0 and the throughput of offline. A long run
    then confirms the rate by LoadGen's rule; if it fails, a lower rate is tried.
    """
    capacity = run_offline(requests, image, seconds=seconds / _PROBE_FRACTION, clock=clock).images_per_s
    min_count = samples_needed(_QUANTILE)
    min_rate = min_count / (_MAX_TIMES * seconds)
    if capacity < min_rate:
        return None, f"a p99 needs {min_count} queries, which would take at least {min_count / capacity:.0f} s"

    def run(rate: float, count: int, allowed: int) -> ScenarioResult | None:
        """Serve `count` arrivals at `rate`; None if more than `allowed` are late."""
        bound_ns = round(bound_ms * 1e6)
        due_ns = poisson_arrivals(rate, count)
        latencies = _serve(requests, image, due_ns, bound_ns, allowed, clock, sleep)
        if latencies is None:
            return None
        rounded_ns = [round_sample(ns) for ns in latencies]
        elapsed_s = seconds_to_last_completion(due_ns, rounded_ns)
        figures = scenario_figures("server", rounded_ns, batch=1, seconds=elapsed_s, bound_ms=bound_ms)
        return replace(figures, arrivals_per_s=rate, effective=dict(requests.facts))

    low, high = 0.0, capacity
    while high - low > _RATE_PRECISION * high and high > min_rate:
        middle = (low + high) / 2
        count = max(min_count, round(middle * seconds / _PROBE_FRACTION))
        within_bound = run(middle, count, int(count * (1 - _QUANTILE))) is not None
        low, high = (middle, high) if within_bound else (low, middle)
    for step in range(_TRIES):
        rate = low * (1 - 2 * _RATE_PRECISION) ** step
        if rate <= min_rate:
            break
        count = max(min_count, round(rate * seconds), round(min(_CONFIRMING_QUERIES, rate * _MAX_TIMES * seconds)))
        if (result := run(rate, count, allowed_excesses(count, _QUANTILE))) is not None:
            return result, None
    return None, f"p99 exceeds {bound_ms:g} ms at {max(low, min_rate):.3g} arrivals per second"


def require_same_logits(requests: Requests, session: Session, images: NDArray[np.float32], tolerance: float) -> None:
    """Raise `RequirementError` if the logits of `requests` differ from those of `session` by more than `tolerance`."""
    import numpy as np

    logits: list[NDArray[np.float32]] = []
    requests.submit(images, lambda output: logits.append(output.copy()))
    requests.wait()
    error = float(np.abs(logits[0] - session.run(images)).max())
    if not error <= tolerance:  # also if it is NaN
        raise RequirementError(
            f"concurrent requests return logits that differ by up to {error:.3g} (allowed {tolerance:.3g})",
            "try --streams 1, or another version of the runtime",
        )


def poisson_arrivals(per_s: float, count: int) -> list[int]:
    """Return the arrival times of `count` queries of a Poisson process, in ns from its start, by a fixed seed."""
    import numpy as np

    gaps = np.random.default_rng(_SEED).exponential(1e9 / per_s, count)
    times: list[int] = gaps.cumsum().astype(np.int64).tolist()
    return times


def seconds_to_last_completion(due_ns: Sequence[int], latencies_ns: Sequence[int]) -> float:
    """Return the time from the start of the arrivals to the last completion."""
    return max(due + latency for due, latency in zip(due_ns, latencies_ns, strict=True)) / 1e9


def _serve(
    requests: Requests,
    image: NDArray[np.float32],
    due_ns: Sequence[int],
    bound_ns: int,
    allowed: int,
    clock: Clock,
    sleep: Sleep,
) -> list[int] | None:
    """Submit a query at each of `due_ns`; return the latencies from then on (ns), or None if too many are late.

    It stops once more than `allowed` queries exceed `bound_ns`.
    """
    latencies = [0] * len(due_ns)
    late: list[int] = []
    start = clock()

    def done(number: int, _: object) -> None:
        latencies[number] = clock() - start - due_ns[number]
        if latencies[number] > bound_ns:
            late.append(number)

    for number, time_ns in enumerate(due_ns):
        wait_ns = start + time_ns - clock()
        if wait_ns > 0:
            sleep(wait_ns / 1e9)
        requests.submit(image, partial(done, number))
        if len(late) > allowed:
            break
    requests.wait()
    return None if len(late) > allowed else latencies


def scenario_figures(
    scenario: Scenario, samples_ns: Sequence[int], *, batch: int, seconds: float, bound_ms: float | None = None
) -> ScenarioResult:
    """Return the figures of queries with known latencies; a percentile with too few samples is None."""
    samples_ms = tuple(ns / 1e6 for ns in samples_ns)

    def valid_percentile(q: float) -> float | None:
        return percentile(samples_ms, q) if len(samples_ms) >= samples_needed(q) else None

    return ScenarioResult(
        scenario=scenario,
        batch=batch,
        queries=len(samples_ms),
        seconds=seconds,
        images_per_s=len(samples_ms) * batch / seconds,
        samples_ms=samples_ms,
        p50_ms=valid_percentile(0.5),
        p90_ms=valid_percentile(0.9),
        p99_ms=valid_percentile(_QUANTILE),
        bound_ms=bound_ms,
        over_bound=None if bound_ms is None else sum(ms > bound_ms for ms in samples_ms),
    )
