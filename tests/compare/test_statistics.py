import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbbench.compare.statistics import holm, superiority


def test_holm_equals_a_published_example() -> None:
    # Holm 1979: the smallest of four is multiplied by 4, the next by 3; never below the previous result, never above 1.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1))
def test_holm_never_lowers_a_p_value_and_keeps_the_order(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(before <= after <= 1 for before, after in zip(p_values, adjusted, strict=True))
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    assert [adjusted[index] for index in order] == sorted(adjusted)


@given(st.lists(st.integers(0, 5), min_size=1), st.lists(st.integers(0, 5), min_size=1))
def test_superiority_equals_the_count_over_all_pairs(first: list[int], second: list[int]) -> None:
    wins = sum((b > a) + (b == a) / 2 for a in first for b in second)
    assert superiority(first, second) == pytest.approx(wins / (len(first) * len(second)))
    assert superiority(first, second) + superiority(second, first) == pytest.approx(1.0)
