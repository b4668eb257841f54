import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from mbbench.stats import (
    mcnemar,
    median,
    median_interval,
    paired_interval,
    percentile,
    samples_needed,
    wilson_interval,
)


@pytest.mark.parametrize(("q", "n"), [(0.5, 11), (0.9, 64), (0.95, 130), (0.99, 662), (0.999, 6636)])
def test_samples_needed_are_loadgens(q: float, n: int) -> None:
    assert samples_needed(q) == n


def test_percentile_is_the_nearest_rank() -> None:
    samples = [float(i) for i in range(100, 0, -1)]
    assert [percentile(samples, q) for q in (0.0, 0.5, 0.9, 0.99, 1.0)] == [1, 50, 90, 99, 100]
    assert percentile([7.0], 0.99) == 7.0


def test_median_of_an_even_number_is_the_middle() -> None:
    assert median([4.0, 1.0, 3.0, 2.0]) == 2.5


def test_wilson_interval_is_the_textbooks() -> None:
    # 8 of 10: 0.490 to 0.943 (Brown, Cai and DasGupta 2001 tabulate the formula; worked by hand).
    interval = wilson_interval(8, 10)
    assert (round(interval.low, 4), round(interval.high, 4)) == (0.4902, 0.9433)


@given(n=st.integers(1, 10_000), share=st.floats(0, 1))
def test_wilson_interval_holds_the_estimate_and_stays_within_0_and_1(n: int, share: float) -> None:
    successes = round(n * share)
    interval = wilson_interval(successes, n)
    assert 0 <= interval.low <= successes / n + 1e-12
    assert successes / n - 1e-12 <= interval.high <= 1
    assert interval.low < interval.high


def test_median_interval_needs_a_hundred_samples() -> None:
    assert median_interval([1.0] * 99) is None
    interval = median_interval([1.0] * 100)
    assert interval is not None
    assert (interval.low, interval.high) == (1.0, 1.0)


def test_median_interval_is_wide_where_samples_drift() -> None:
    """Half of the run 10 % slower: one sample's noise says nothing, the blocks do."""
    rng = np.random.default_rng(0)
    steady = 1 + 0.01 * rng.standard_normal(1000)
    drifting = steady * np.where(np.arange(1000) < 500, 1.0, 1.1)
    narrow, wide = median_interval(steady.tolist()), median_interval(drifting.tolist())
    assert narrow is not None
    assert wide is not None
    assert narrow.high - narrow.low < 0.005
    assert wide.high - wide.low > 0.08


def test_median_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for seed in range(200):
        interval = median_interval(rng.exponential(size=200).tolist(), seed)
        assert interval is not None
        covered += interval.low <= np.log(2) <= interval.high
    assert 180 <= covered <= 199


@pytest.mark.parametrize(("first", "second", "p"), [(0, 0, 1.0), (5, 5, 1.0), (6, 0, 2 / 64), (10, 2, 158 / 4096)])
def test_mcnemar_is_the_binomial_test_of_what_differs(first: int, second: int, p: float) -> None:
    assert mcnemar(first, second) == pytest.approx(p)
    assert mcnemar(second, first) == mcnemar(first, second)
    if first + second:
        assert mcnemar(first, second) == pytest.approx(binomtest(first, first + second).pvalue)


def test_the_paired_interval_narrows_with_images_and_holds_the_difference() -> None:
    few, many = paired_interval(6, 2, 100), paired_interval(60, 20, 1000)
    assert few.low < 0.04 < few.high and many.low < 0.04 < many.high
    assert many.high - many.low < few.high - few.low
    assert few.low < 0 < many.low


def test_the_paired_interval_covers_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    draws = random.multinomial(400, (0.05, 0.02, 0.93), 2000)
    inside = sum(i.low <= 0.03 <= i.high for i in (paired_interval(int(a), int(b), 400) for a, b, _ in draws))
    assert 0.93 < inside / 2000 < 0.98
