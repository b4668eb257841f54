"""Statistics of latency samples and proportions, as pure functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Annotated, TypeVar

from msgspec import Meta

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_T = TypeVar("_T")

Z95 = 1.959963984540054  # the normal distribution's 97.5th percentile
_BLOCKS = 20
_MIN_BLOCK_SAMPLES = 5
_RESAMPLES = 1000
_MAX_EXACT = 1000
_PRECISE_HALF_WIDTH = 0.01  # of the median's interval, as a share of the median


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval."""

    low: Annotated[float, Meta(ge=-1e40, le=1e40)]
    high: Annotated[float, Meta(ge=-1e40, le=1e40)]


def percentile(samples: Sequence[float], q: float) -> float:
    """Return the nearest-rank percentile: the smallest sample that at least the share `q` (0 to 1) does not exceed."""
    return sorted(samples)[max(math.ceil(q * len(samples)), 1) - 1]


def median(samples: Sequence[float]) -> float:
    """Return the median."""
    import numpy as np

    return float(np.median(np.asarray(samples)))


def interquartile_mean(samples: Sequence[float]) -> float:
    """Return the mean without the lowest and the highest quarter of the samples (each rounded down)."""
    return _trimmed_mean(samples, 4)


def standard_deviation(samples: Sequence[float]) -> float:
    """Return the sample standard deviation (n - 1) of at least two samples."""
    import numpy as np

    return float(np.std(np.asarray(samples), ddof=1))


def allowed_excesses(n: int, q: float, confidence: float = 0.99) -> int:
    """Return how many of `n` samples may exceed a bound for the `q` percentile to meet it at `confidence`.

    -1 means that `n` samples are too few. This is MLPerf LoadGen's early-stopping rule at tolerance 0, as in
    `samples_needed`: if samples exceeded the bound with probability 1 - q, observing at most one excess more than the
    returned number would have a probability of at most 1 - confidence.
    """
    from scipy.stats import binom

    return max(int(binom.ppf(1.0 - confidence, n, 1.0 - q)) - 2, -1)


@cache
def samples_needed(q: float, confidence: float = 0.99) -> int:
    """Return the smallest number of samples for which a `q` percentile is valid at `confidence`.

    MLPerf LoadGen's early-stopping rule at tolerance 0: if samples exceeded the bound with probability 1 - q, observing
    at most one excess among them would have a probability of at most 1 - confidence. p50 11, p90 64, p95 130, p99 662,
    p99.9 6636.
    """
    excess_probability = 1.0 - q
    n = 2
    while q**n + n * excess_probability * q ** (n - 1) > 1.0 - confidence:
        n += 1
    return n


def median_interval(samples: Sequence[float], seed: int = 0) -> Interval | None:
    """Return the median's 95 % interval by resampling 20 consecutive blocks; None for fewer than 100 samples.

    Consecutive latencies are correlated (clock rate, other guests, interrupts), so single samples are not independent
    replicates: an interval from them is several times too narrow. Blocks preserve the correlation.
    """
    import numpy as np

    size = len(samples) // _BLOCKS
    if size < _MIN_BLOCK_SAMPLES:
        return None
    values = np.asarray(samples[: size * _BLOCKS])
    order = np.argsort(values)
    picks = np.random.default_rng(seed).integers(0, _BLOCKS, (_RESAMPLES, _BLOCKS))
    copies = (picks[:, :, None] == np.arange(_BLOCKS)).sum(axis=1)  # of each block in each resample
    # How many of the smallest k samples are of each block: (k, block).
    smallest = np.zeros((len(values) + 1, _BLOCKS), np.int32)
    np.cumsum((order // size)[:, None] == np.arange(_BLOCKS), axis=0, out=smallest[1:])

    def order_statistic(rank: int) -> NDArray[np.float64]:
        """Return the sample of that rank (from 1) in each resample, by bisection over the sorted samples."""
        low, high = np.zeros(_RESAMPLES, np.intp), np.full(_RESAMPLES, len(values))
        while (low < high).any():
            middle = (low + high) // 2
            enough = (copies * smallest[middle]).sum(axis=1) >= rank
            low, high = np.where(enough, low, middle + 1), np.where(enough, middle, high)
        return values[order[low - 1]]

    half = len(values) // 2  # the number of blocks, and so of samples, is even
    low, high = np.percentile((order_statistic(half) + order_statistic(half + 1)) / 2, (2.5, 97.5))
    return Interval(float(low), float(high))


@dataclass(frozen=True, slots=True)
class Effect:
    """An estimate from replicates. `p_value` is two-sided, for the hypothesis that the true value is 0."""

    estimate: float
    ci95: Interval
    standard_error: float
    p_value: float


def trimmed_effect(replicates: Sequence[float], alternating: bool = False) -> Effect | None:
    """Return the replicates' mean trimmed by a fifth on either side, with Yuen's interval and test (1974).

    A replicate has its own set-up (a process, a pair of sessions); a single sample is not a replicate, since
    consecutive samples are correlated and all samples of one set-up share its bias. Trimming makes the estimate robust
    to an occasional outlying set-up. Fewer than five replicates are not trimmed, and the test is Student's. Returns
    None with fewer than two degrees of freedom.

    `alternating`: every other replicate was set up in the opposite order. The effect of the order is removed: half the
    difference of the two halves' trimmed means is subtracted from one half and added to the other, which costs a degree
    of freedom.
    """
    import numpy as np

    values = np.asarray(replicates, dtype=np.float64)
    n = len(values)
    trimmed = n // 5  # on either side
    remaining = n - 2 * trimmed
    freedom = remaining - 1 - alternating
    if freedom < 2:
        return None
    if alternating:
        order_effect = (_trimmed_mean(values[::2], 5) - _trimmed_mean(values[1::2], 5)) / 2
        values = values - np.where(np.arange(n) % 2 == 0, order_effect, -order_effect)
    ordered = np.sort(values)
    winsorized = np.clip(ordered, ordered[trimmed], ordered[n - 1 - trimmed])
    squares = float(((winsorized - winsorized.mean()) ** 2).sum())
    return student_effect(_trimmed_mean(values, 5), math.sqrt(squares / (remaining * freedom)), freedom)


def _trimmed_mean(values: Sequence[float] | NDArray[np.float64], divisor: int) -> float:
    """Return the mean without the lowest and the highest 1/`divisor` of the values, rounded down."""
    import numpy as np

    trimmed = len(values) // divisor
    return float(np.sort(np.asarray(values))[trimmed : len(values) - trimmed].mean())


def jackknife_effect(statistic: Callable[[Sequence[_T]], float], replicates: Sequence[_T]) -> Effect | None:
    """Return the effect for a statistic of all replicates' samples, such as a p99, with its jackknife standard error.

    Omitting one whole replicate at a time is valid for quantiles too, unlike omitting single samples (Shao and Wu
    1989). Returns None for fewer than three replicates.
    """
    n = len(replicates)
    if n < 3:
        return None
    variance = _jackknife_variance([statistic([*replicates[:i], *replicates[i + 1 :]]) for i in range(n)])
    return student_effect(statistic(replicates), math.sqrt(variance), n - 1)


def _jackknife_variance(partial_estimates: Sequence[float]) -> float:
    """Return a statistic's variance from its estimates that each omit one replicate."""
    import numpy as np

    return (len(partial_estimates) - 1) * float(np.var(np.asarray(partial_estimates)))


def separate_effect(
    statistic: Callable[[Sequence[float]], float],
    first: Sequence[float],
    second: Sequence[float],
    spread: float = 0.0,
    rounds: int = 0,
) -> Effect | None:
    """Return the log ratio of a positive statistic of two runs' samples, `second` over `first`.

    The statistic must not depend on the samples' order. Each run's variance is the jackknife's over blocks (19 degrees
    of freedom). `spread` is the standard deviation of the statistic's logarithm between runs, which a single run cannot
    show, estimated from at least two `rounds` of a calibration; 0 if it is unknown. It applies to both runs but is one
    estimate: it adds 2 * spread**2 with rounds - 1 degrees of freedom. The degrees of freedom of the sum are those of
    Satterthwaite (1946) and Welch (1947). Returns None if a run has fewer than 100 samples.
    """
    import numpy as np

    variances = []
    for samples in (first, second):
        size = len(samples) // _BLOCKS
        if size < _MIN_BLOCK_SAMPLES:
            return None
        values = np.asarray(samples[: size * _BLOCKS])
        order = np.argsort(values)
        # Sorted once: a statistic that sorts has less to do, 20 times.
        ordered, blocks = values[order], order // size
        estimates = [math.log(statistic(ordered[blocks != block].tolist())) for block in range(_BLOCKS)]
        variances.append((_jackknife_variance(estimates), _BLOCKS - 1))
    if spread:
        variances.append((2 * spread**2, rounds - 1))
    error, freedom = _combine(variances)
    return student_effect(math.log(statistic(second) / statistic(first)), error, freedom)


def _combine(variances: Sequence[tuple[float, int]]) -> tuple[float, float]:
    """Return the standard error of a sum of independent terms, and its degrees of freedom by Welch-Satterthwaite.

    `variances` are the estimated variances of the terms, each with its degrees of freedom.
    """
    total = sum(variance for variance, _ in variances)
    if not total:
        return 0.0, float(sum(freedom for _, freedom in variances))
    return math.sqrt(total), 1 / sum((variance / total) ** 2 / freedom for variance, freedom in variances)


def student_effect(estimate: float, error: float, freedom: float) -> Effect:
    """Return the effect of an estimate with a standard error of `freedom` degrees of freedom (Student's t)."""
    from scipy.special import stdtr, stdtrit  # scipy.stats takes half a second to import

    half_width = float(stdtrit(freedom, 0.975)) * error
    p_without_spread = 0.0 if estimate else 1.0
    p_value = 2 * float(stdtr(freedom, -abs(estimate) / error)) if error > 0 else p_without_spread
    return Effect(estimate, Interval(estimate - half_width, estimate + half_width), error, p_value)


def drift(samples: Sequence[float]) -> float:
    """Return the median of the last quarter over that of the first, minus 1: the effect of heat or clock rate."""
    quarter = max(len(samples) // 4, 1)
    return median(samples[-quarter:]) / median(samples[:quarter]) - 1


def count_outliers(samples: Sequence[float]) -> int:
    """Return the number of samples beyond Tukey's outer fences (three interquartile ranges outside the quartiles).

    Outliers are counted, never removed: they are latencies that occurred.
    """
    import numpy as np

    values = np.asarray(samples)
    low, high = np.percentile(values, (25, 75))
    distance = 3 * (high - low)
    return int(((values < low - distance) | (values > high + distance)).sum())


def is_precise(samples: Sequence[float]) -> bool:
    """Return whether the median's interval is at most 2 % of the median wide; False for fewer than 100 samples."""
    interval = median_interval(samples)
    return interval is not None and interval.high - interval.low <= 2 * _PRECISE_HALF_WIDTH * median(samples)


def wilson_interval(successes: int, n: int) -> Interval:
    """Return the 95 % score interval of a proportion (Wilson 1927); `n` must be positive."""
    p = successes / n
    center = p + Z95**2 / (2 * n)
    half_width = Z95 * math.sqrt(p * (1 - p) / n + Z95**2 / (4 * n * n))
    scale = 1 + Z95**2 / n
    return Interval(max((center - half_width) / scale, 0.0), min((center + half_width) / scale, 1.0))


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the two-sided p-value of McNemar's exact test (1947): are two classifiers right equally often?

    Only the images count on which exactly one of them is right; under the hypothesis, each of the two is right on such
    an image with probability 1/2.
    """
    n = only_first + only_second
    fewer = min(only_first, only_second)
    if n > _MAX_EXACT:  # sums of integers of thousands of digits take minutes
        from scipy.stats import binom

        return min(1.0, float(2 * binom.cdf(fewer, n, 0.5)))
    return min(1.0, float(2 * sum(math.comb(n, k) for k in range(fewer + 1)) / 2**n))


def paired_interval(only_first: int, only_second: int, n: int) -> Interval:
    """Return the 95 % interval of the difference of two proportions on the same `n` items (Bonett and Price 2012)."""
    first, second, count = only_first + 1, only_second + 1, n + 2
    difference = (first - second) / count
    half_width = Z95 * math.sqrt((first + second) / count - difference**2) / math.sqrt(count)
    return Interval(max(difference - half_width, -1.0), min(difference + half_width, 1.0))
