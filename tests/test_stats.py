import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, t, trim_mean, ttest_1samp

from mbbench.stats import (
    Interval,
    allowed_excesses,
    count_outliers,
    interquartile_mean,
    jackknife_effect,
    mcnemar,
    median,
    median_interval,
    paired_interval,
    percentile,
    samples_needed,
    separate_effect,
    trimmed_effect,
    wilson_interval,
)


@pytest.mark.parametrize(("q", "n"), [(0.5, 11), (0.9, 64), (0.95, 130), (0.99, 662), (0.999, 6636)])
def test_samples_needed_are_those_of_loadgen(q: float, n: int) -> None:
    assert samples_needed(q) == n


@pytest.mark.parametrize(
    ("n", "q", "expected"),
    [(661, 0.99, -1), (662, 0.99, 0), (1000, 0.99, 1), (5000, 0.99, 32), (63, 0.9, -1), (64, 0.9, 0), (1, 0.99, -1)],
)
def test_allowed_excesses_are_those_of_loadgen(n: int, q: float, expected: int) -> None:
    assert allowed_excesses(n, q) == expected


def test_percentile_is_the_nearest_rank() -> None:
    samples = [float(i) for i in range(100, 0, -1)]
    assert [percentile(samples, q) for q in (0.0, 0.5, 0.9, 0.99, 1.0)] == [1, 50, 90, 99, 100]
    assert percentile([7.0], 0.99) == 7.0


def test_the_median_of_an_even_number_is_between_the_middle_samples() -> None:
    assert median([4.0, 1.0, 3.0, 2.0]) == 2.5


def test_wilson_interval_equals_a_published_example() -> None:
    # 8 of 10: 0.490 to 0.943 (Brown, Cai and DasGupta 2001 tabulate the formula; worked by hand).
    interval = wilson_interval(8, 10)
    assert (round(interval.low, 4), round(interval.high, 4)) == (0.4902, 0.9433)


@given(n=st.integers(1, 10_000), share=st.floats(0, 1))
def test_wilson_interval_contains_the_estimate_and_is_within_0_and_1(n: int, share: float) -> None:
    successes = round(n * share)
    interval = wilson_interval(successes, n)
    assert 0 <= interval.low <= successes / n + 1e-12
    assert successes / n - 1e-12 <= interval.high <= 1
    assert interval.low < interval.high


def test_median_interval_is_none_below_a_hundred_samples() -> None:
    assert median_interval([1.0] * 99) is None
    interval = median_interval([1.0] * 100)
    assert interval is not None
    assert (interval.low, interval.high) == (1.0, 1.0)


@pytest.mark.parametrize("count", [100, 119, 500])
def test_median_interval_is_that_of_the_resampled_blocks(count: int) -> None:
    samples = np.round(np.random.default_rng(count).normal(5, 1, count), 1)  # with ties
    blocks = samples[: count // 20 * 20].reshape(20, -1)
    picks = np.random.default_rng(3).integers(0, 20, (1000, 20))
    low, high = np.percentile([np.median(blocks[pick]) for pick in picks], (2.5, 97.5))
    assert median_interval(samples.tolist(), seed=3) == Interval(low, high)


def test_median_interval_is_wide_if_samples_drift() -> None:
    """Half of the run is 10 % slower, which an interval from single samples would miss."""
    rng = np.random.default_rng(0)
    steady = 1 + 0.01 * rng.standard_normal(1000)
    drifting = steady * np.where(np.arange(1000) < 500, 1.0, 1.1)
    narrow, wide = median_interval(steady.tolist()), median_interval(drifting.tolist())
    assert narrow is not None
    assert wide is not None
    assert narrow.high - narrow.low < 0.005
    assert wide.high - wide.low > 0.08


def test_the_coverage_of_median_interval_is_about_95_percent() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for seed in range(200):
        interval = median_interval(rng.exponential(size=200).tolist(), seed)
        assert interval is not None
        covered += interval.low <= np.log(2) <= interval.high
    assert 180 <= covered <= 199


@pytest.mark.parametrize(("first", "second", "p"), [(0, 0, 1.0), (5, 5, 1.0), (6, 0, 2 / 64), (10, 2, 158 / 4096)])
def test_mcnemar_is_the_binomial_test_of_the_differing_images(first: int, second: int, p: float) -> None:
    assert mcnemar(first, second) == pytest.approx(p)
    assert mcnemar(second, first) == mcnemar(first, second)
    if first + second:
        assert mcnemar(first, second) == pytest.approx(binomtest(first, first + second).pvalue)


@pytest.mark.parametrize(("first", "second"), [(480, 521), (400, 700), (900, 101)])
def test_mcnemar_of_many_images_is_the_same_test(first: int, second: int) -> None:
    n, fewer = first + second, min(first, second)
    exact = Fraction(2 * sum(math.comb(n, k) for k in range(fewer + 1)), 2**n)
    assert mcnemar(first, second) == pytest.approx(float(exact), rel=1e-10)


def test_mcnemar_of_a_million_images_ends() -> None:
    assert mcnemar(10**6, 10**6) == 1.0
    assert mcnemar(10**6, 10**5) == 0.0


def test_paired_interval_contains_the_difference_and_narrows_with_more_images() -> None:
    few, many = paired_interval(6, 2, 100), paired_interval(60, 20, 1000)
    assert few.low < 0.04 < few.high and many.low < 0.04 < many.high
    assert many.high - many.low < few.high - few.low
    assert few.low < 0 < many.low


def test_the_coverage_of_paired_interval_is_about_95_percent() -> None:
    rng = np.random.default_rng(0)
    draws = rng.multinomial(400, (0.05, 0.02, 0.93), 2000)
    inside = sum(i.low <= 0.03 <= i.high for i in (paired_interval(int(a), int(b), 400) for a, b, _ in draws))
    assert 0.93 < inside / 2000 < 0.98


def spaced_blocks(step: float) -> list[float]:
    """100 samples in 20 blocks of 5 equal samples, whose logarithms are -9.5 to 9.5 times `step`."""
    return [float(np.exp(step * (block - 9.5))) for block in range(20) for _ in range(5)]


def mean_of_logs(samples: Sequence[float]) -> float:
    """The geometric mean: the jackknife variance of its logarithm is the squared standard error of the mean."""
    return float(np.exp(np.mean(np.log(np.asarray(samples)))))


@pytest.mark.parametrize(
    ("steps", "spread", "rounds", "variance", "freedom"),
    [
        # The blocks' variance is 35 step**2 (20 * 21 / 12), that of their mean 35 / 20 = 1.75 step**2.
        ((0.01, 0.01), 0.0, 0, 3.5e-4, 38.0),
        ((0.01, 0.02), 0.0, 0, 8.75e-4, 19 * 25 / 17),  # 19 * (1 + 4)**2 / (1 + 16)
        ((0.01, 0.01), 0.1, 5, 2.035e-2, 2.035e-2**2 / (2 * 1.75e-4**2 / 19 + 0.02**2 / 4)),  # 4.14
        ((0.0, 0.0), 0.1, 5, 2e-2, 4.0),  # all of the variance is that of the calibration, used twice
        ((0.0, 0.0), 0.1, 20, 2e-2, 19.0),
    ],
)
def test_separate_effect_combines_degrees_of_freedom_by_welch_and_satterthwaite(
    steps: tuple[float, float], spread: float, rounds: int, variance: float, freedom: float
) -> None:
    first, second = spaced_blocks(steps[0]), [1.5 * sample for sample in spaced_blocks(steps[1])]
    effect = separate_effect(mean_of_logs, first, second, spread, rounds)
    assert effect is not None
    half_width = t.ppf(0.975, freedom) * variance**0.5
    assert effect.estimate == pytest.approx(np.log(1.5))
    assert effect.standard_error == pytest.approx(variance**0.5)
    assert effect.ci95.low == pytest.approx(np.log(1.5) - half_width)
    assert effect.ci95.high == pytest.approx(np.log(1.5) + half_width)
    assert effect.p_value == pytest.approx(2 * t.sf(np.log(1.5) / variance**0.5, freedom))


def test_separate_effect_of_constant_samples_is_exact() -> None:
    effect = separate_effect(median, [1.0] * 100, [2.0] * 100)
    assert effect is not None
    assert (effect.ci95, effect.standard_error, effect.p_value) == (Interval(np.log(2), np.log(2)), 0.0, 0.0)
    assert separate_effect(median, [1.0] * 99, [2.0] * 100) is None


def test_interquartile_mean_omits_a_quarter_on_either_side() -> None:
    assert interquartile_mean([100.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -100.0]) == 3.5
    assert interquartile_mean([5.0, 1.0, 3.0]) == 3.0


@given(st.lists(st.floats(-1e6, 1e6), min_size=1))
def test_interquartile_mean_equals_scipys_trimmed_mean(samples: list[float]) -> None:
    assert interquartile_mean(samples) == pytest.approx(trim_mean(samples, 0.25), rel=1e-9, abs=1e-9)


@given(st.lists(st.floats(-10, 10), min_size=3, max_size=4))
def test_trimmed_effect_of_few_replicates_equals_scipys_t_test(replicates: list[float]) -> None:
    effect = trimmed_effect(replicates)
    assert effect is not None
    if effect.standard_error < 1e-6:
        return
    expected = ttest_1samp(replicates, 0.0)
    assert effect.p_value == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-12)
    interval = expected.confidence_interval(0.95)
    assert (effect.ci95.low, effect.ci95.high) == pytest.approx((interval.low, interval.high), rel=1e-6, abs=1e-9)


def test_two_replicates_are_too_few_for_an_effect() -> None:
    assert trimmed_effect([1.0, 2.0]) is None
    assert jackknife_effect(sum, [1.0, 2.0]) is None


def test_equal_replicates_have_an_interval_of_width_0() -> None:
    for value, p_value in ((0.0, 1.0), (2.0, 0.0)):
        effect = trimmed_effect([value] * 4)
        assert effect is not None
        assert (effect.estimate, effect.ci95, effect.p_value) == (value, Interval(value, value), p_value)


def test_trimmed_effect_equals_yuens() -> None:
    """By hand: 1 to 10 without two on either side; the winsorized variance is that of 3 3 3 4 5 6 7 8 8 8."""
    effect = trimmed_effect([float(i) for i in range(1, 11)])
    assert effect is not None
    winsorized = float(np.var([3, 3, 3, 4, 5, 6, 7, 8, 8, 8], ddof=1))
    assert effect.estimate == 5.5
    assert effect.standard_error == pytest.approx((winsorized * 9 / (6 * 5)) ** 0.5)


def test_the_effect_of_alternating_order_is_removed() -> None:
    """A constant shift of every other replicate does not count as spread."""
    replicates = [0.02, 0.021, 0.019, 0.0205, 0.0195, 0.02, 0.0202, 0.0198, 0.0201, 0.0199]
    shifted = [value + (0.1 if index % 2 else -0.1) for index, value in enumerate(replicates)]
    plain, adjusted = trimmed_effect(shifted), trimmed_effect(shifted, alternating=True)
    assert plain is not None and adjusted is not None
    assert plain.standard_error > 0.03
    assert adjusted.standard_error < 0.001
    assert adjusted.estimate == pytest.approx(0.02, abs=0.0005)


def test_the_coverage_of_alternating_replicates_is_about_95_percent() -> None:
    rng = np.random.default_rng(2)
    order = np.where(np.arange(20) % 2, 0.02, -0.02)
    effects = [trimmed_effect((rng.normal(0.02, 0.01, 20) + order).tolist(), alternating=True) for _ in range(2000)]
    covered = sum(effect is not None and effect.ci95.low <= 0.02 <= effect.ci95.high for effect in effects)
    assert 0.93 <= covered / 2000 <= 0.97


def test_one_outlying_replicate_does_not_hide_an_effect() -> None:
    effect = trimmed_effect([0.019, 0.021, 0.02, 0.0195, 0.0205, 0.02, -0.08, 0.0202])
    assert effect is not None
    assert effect.estimate == pytest.approx(0.02, abs=0.001)
    assert effect.p_value < 0.001


@given(st.lists(st.floats(-10, 10), min_size=3, max_size=4))
def test_the_jackknife_error_of_a_mean_is_its_standard_error(replicates: list[float]) -> None:
    plain, jackknife = (
        trimmed_effect(replicates),
        jackknife_effect(lambda values: sum(values) / len(values), replicates),
    )
    assert plain is not None and jackknife is not None
    assert jackknife.standard_error == pytest.approx(plain.standard_error, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("count", [4, 8])
def test_the_coverage_of_trimmed_effect_is_about_95_percent(count: int) -> None:
    rng = np.random.default_rng(1)
    effects = [trimmed_effect(rng.normal(0.02, 0.01, count).tolist()) for _ in range(2000)]
    covered = sum(effect is not None and effect.ci95.low <= 0.02 <= effect.ci95.high for effect in effects)
    assert 0.93 <= covered / 2000 <= 0.97


def test_outliers_are_beyond_three_interquartile_ranges() -> None:
    samples = [float(i) for i in range(101)]  # quartiles 25 and 75: fences at -125 and 225
    assert count_outliers(samples) == 0
    assert count_outliers([*samples, 224.0, 231.0, -131.0]) == 2
