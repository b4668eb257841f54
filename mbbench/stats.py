"""Statistics of latency samples and proportions: pure functions, numbers in, numbers out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

_Z95 = 1.959963984540054  # the normal distribution's 97.5th percentile
_BLOCKS = 20
_RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Interval:
    low: float
    high: float


def percentile(samples: Sequence[float], q: float) -> float:
    """The nearest-rank percentile: the smallest sample that at least the share `q` (0 to 1) of all do not exceed."""
    return sorted(samples)[max(math.ceil(q * len(samples)), 1) - 1]


def median(samples: Sequence[float]) -> float:
    import numpy as np

    return float(np.median(np.asarray(samples)))


@cache
def samples_needed(q: float, confidence: float = 0.99) -> int:
    """Fewest samples for which a `q` percentile is valid at `confidence`.

    MLPerf LoadGen's early-stopping rule at tolerance 0: the fewest samples among which, if the bound were really
    exceeded with probability 1 - q, at most one excess would be seen with a probability of no more than
    1 - confidence. p50 11, p90 64, p95 130, p99 662, p99.9 6636.
    """
    excess = 1.0 - q
    n = 2
    while q**n + n * excess * q ** (n - 1) > 1.0 - confidence:
        n += 1
    return n


def median_interval(samples: Sequence[float], seed: int = 0) -> Interval | None:
    """95 % interval of the median by resampling 20 consecutive blocks; None where they would hold fewer than 5 samples.

    Latencies that follow each other are alike (frequency, neighbours, interrupts), so single samples are no unit of
    replication and an interval from them is several times too narrow. Blocks keep what happened together together.
    """
    import numpy as np

    size = len(samples) // _BLOCKS
    if size < 5:
        return None
    blocks = np.asarray(samples[: size * _BLOCKS]).reshape(_BLOCKS, size)
    picks = np.random.default_rng(seed).integers(0, _BLOCKS, (_RESAMPLES, _BLOCKS))
    medians = [float(np.median(blocks[pick])) for pick in picks]
    low, high = np.percentile(medians, (2.5, 97.5))
    return Interval(float(low), float(high))


def wilson_interval(successes: int, n: int) -> Interval:
    """95 % score interval of a proportion (Wilson 1927); `n` must be positive."""
    p = successes / n
    centre = p + _Z95**2 / (2 * n)
    half = _Z95 * math.sqrt(p * (1 - p) / n + _Z95**2 / (4 * n * n))
    scale = 1 + _Z95**2 / n
    return Interval(max((centre - half) / scale, 0.0), min((centre + half) / scale, 1.0))


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided p-value of McNemar's exact test (1947): are two classifiers right on the same images equally often?

    Only the images on which one alone is right count; under the hypothesis each falls to either with probability 1/2.
    """
    n = only_first + only_second
    tail = sum(math.comb(n, k) for k in range(min(only_first, only_second) + 1))
    return min(1.0, float(2 * tail / 2**n))


def paired_interval(only_first: int, only_second: int, n: int) -> Interval:
    """95 % interval of the difference of two proportions on the same `n` items (Bonett and Price 2012)."""
    first, second, count = only_first + 1, only_second + 1, n + 2
    difference = (first - second) / count
    half = _Z95 * math.sqrt((first + second) / count - difference**2) / math.sqrt(count)
    return Interval(max(difference - half, -1.0), min(difference + half, 1.0))
