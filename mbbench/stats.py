"""Statistics of latency samples and proportions: pure functions, numbers in, numbers out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_T = TypeVar("_T")

Z95 = 1.959963984540054  # the normal distribution's 97.5th percentile
_BLOCKS = 20
_RESAMPLES = 1000
_PRECISE = 0.01


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


def interquartile_mean(samples: Sequence[float]) -> float:
    """The mean of what is left without the lowest and the highest quarter (each rounded down)."""
    return _trimmed_mean(samples, 4)


def deviation(samples: Sequence[float]) -> float:
    """The standard deviation of what the samples, at least two, are drawn from."""
    import numpy as np

    return float(np.std(np.asarray(samples), ddof=1))


def may_exceed(n: int, q: float, confidence: float = 0.99) -> int:
    """How many of `n` samples may exceed a bound which the `q` percentile keeps at `confidence`; -1: n is too few.

    MLPerf LoadGen's early-stopping rule at tolerance 0, as in `samples_needed`: if the bound were really exceeded with
    probability 1 - q, so many excesses and one more would be seen with a probability of no more than 1 - confidence.
    """
    from scipy.stats import binom

    return max(int(binom.ppf(1.0 - confidence, n, 1.0 - q)) - 2, -1)


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


@dataclass(frozen=True, slots=True)
class Effect:
    """An estimate from replicates: its 95 % interval, its standard error, and the two-sided p-value of its being 0."""

    estimate: float
    ci95: Interval
    standard_error: float
    p_value: float


def trimmed_effect(replicates: Sequence[float], alternating: bool = False) -> Effect | None:
    """Yuen's interval and test (1974) of the replicates' mean without the lowest and the highest fifth of them.

    A replicate is what was set up anew (a process, a pair of sessions), never a single sample: neighbouring samples
    are alike, and all of one set-up share its accidents. Trimming bears the odd set-up that is far off; below five
    replicates nothing is trimmed, and this is Student's. None for fewer than three that are free.

    `alternating`: every other replicate was set up the other way round. What that does to the trimmed mean of either
    half is taken off both, and costs a degree of freedom.
    """
    import numpy as np

    values = np.asarray(replicates, dtype=np.float64)
    n = len(values)
    cut = n // 5
    kept = n - 2 * cut
    freedom = kept - 1 - alternating
    if freedom < 2:
        return None
    if alternating:
        half = (_trimmed_mean(values[::2], 5) - _trimmed_mean(values[1::2], 5)) / 2
        values = values - np.where(np.arange(n) % 2 == 0, half, -half)
    ordered = np.sort(values)
    winsorized = np.clip(ordered, ordered[cut], ordered[n - 1 - cut])
    squares = float(((winsorized - winsorized.mean()) ** 2).sum())
    return student(_trimmed_mean(values, 5), math.sqrt(squares / (kept * freedom)), freedom)


def _trimmed_mean(values: Sequence[float] | NDArray[np.float64], part: int) -> float:
    """Without the lowest and the highest `part`th of the values, rounded down."""
    import numpy as np

    cut = len(values) // part
    return float(np.sort(np.asarray(values))[cut : len(values) - cut].mean())


def jackknife_effect(statistic: Callable[[Sequence[_T]], float], replicates: Sequence[_T]) -> Effect | None:
    """The same for a statistic of all replicates' samples together, such as a p99, with the jackknife's standard error.

    Leaving out a whole replicate at a time works for quantiles too, where leaving out single samples does not (Shao and
    Wu 1989). None for fewer than three replicates.
    """
    n = len(replicates)
    if n < 3:
        return None
    variance = _jackknife_variance([statistic([*replicates[:i], *replicates[i + 1 :]]) for i in range(n)])
    return student(statistic(replicates), math.sqrt(variance), n - 1)


def _jackknife_variance(left_out: Sequence[float]) -> float:
    """Of a statistic, from its values with one replicate left out at a time."""
    import numpy as np

    return (len(left_out) - 1) * float(np.var(np.asarray(left_out)))


def separate_effect(
    statistic: Callable[[Sequence[float]], float], first: Sequence[float], second: Sequence[float], spread: float = 0.0
) -> Effect | None:
    """The log ratio of a positive statistic of two runs' samples, `second` over `first`, by the jackknife over blocks.

    `spread` is the standard deviation that the logarithm has from run to run, which no single run can show. None where
    a run has fewer than 100 samples.
    """
    import numpy as np

    errors = []
    for samples in (first, second):
        size = len(samples) // _BLOCKS
        if size < 5:
            return None
        blocks = np.asarray(samples[: size * _BLOCKS]).reshape(_BLOCKS, size)
        left_out = [math.log(statistic(np.delete(blocks, i, axis=0).ravel().tolist())) for i in range(_BLOCKS)]
        errors.append(_jackknife_variance(left_out) + spread**2)
    return student(math.log(statistic(second) / statistic(first)), math.sqrt(sum(errors)), 2 * (_BLOCKS - 1))


def student(estimate: float, error: float, freedom: int) -> Effect:
    """The effect of an estimate with a standard error of so many degrees of freedom."""
    from scipy.stats import t

    half = float(t.ppf(0.975, freedom)) * error
    certain = 0.0 if estimate else 1.0  # where all replicates say the same
    p_value = 2 * float(t.sf(abs(estimate) / error, freedom)) if error > 0 else certain
    return Effect(estimate, Interval(estimate - half, estimate + half), error, p_value)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values adjusted for there being several (Holm 1979): below 0.05, no more than one family in 20 errs."""
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min((len(p_values) - rank) * p_values[index], 1.0))
        adjusted[index] = highest
    return adjusted


def superiority(first: Sequence[float], second: Sequence[float]) -> float:
    """The effect size A of Vargha and Delaney (2000): how often one of `second` exceeds one of `first`, ties half.

    0.5: no difference; 0.56, 0.64 and 0.71 are called small, medium and large.
    """
    import numpy as np

    ordered, values = np.sort(np.asarray(first)), np.asarray(second)
    below, not_above = np.searchsorted(ordered, values, "left"), np.searchsorted(ordered, values, "right")
    return float((below + not_above).sum() / (2 * len(ordered) * len(values)))


def drift(samples: Sequence[float]) -> float:
    """The median of the last quarter over that of the first, less 1: what heat, clock rates and neighbours did."""
    quarter = max(len(samples) // 4, 1)
    return median(samples[-quarter:]) / median(samples[:quarter]) - 1


def outliers(samples: Sequence[float]) -> int:
    """How many lie beyond Tukey's outer fences (three interquartile ranges outside the quartiles).

    They are counted, never removed: a latency that happened is a latency.
    """
    import numpy as np

    values = np.asarray(samples)
    low, high = np.percentile(values, (25, 75))
    reach = 3 * (high - low)
    return int(((values < low - reach) | (values > high + reach)).sum())


def is_precise(samples: Sequence[float]) -> bool:
    """Whether the median's interval reaches no further than 1 % to either side, on average; never below 100 samples."""
    interval = median_interval(samples)
    return interval is not None and interval.high - interval.low <= 2 * _PRECISE * median(samples)


def wilson_interval(successes: int, n: int) -> Interval:
    """95 % score interval of a proportion (Wilson 1927); `n` must be positive."""
    p = successes / n
    centre = p + Z95**2 / (2 * n)
    half = Z95 * math.sqrt(p * (1 - p) / n + Z95**2 / (4 * n * n))
    scale = 1 + Z95**2 / n
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
    half = Z95 * math.sqrt((first + second) / count - difference**2) / math.sqrt(count)
    return Interval(max(difference - half, -1.0), min(difference + half, 1.0))
