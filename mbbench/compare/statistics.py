"""Statistics of many comparisons, and of the size of a difference."""

from __future__ import annotations

from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values adjusted for multiple tests (Holm 1979).

    If a difference counts as significant below 0.05, at most one family of tests in 20 contains a false one.
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min((len(p_values) - rank) * p_values[index], 1.0))
        adjusted[index] = highest
    return adjusted


def superiority(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the effect size A of Vargha and Delaney (2000): how often a value of `second` exceeds one of `first`.

    Ties count half. 0.5 is no difference; 0.56, 0.64 and 0.71 are called small, medium and large.
    """
    import numpy as np

    ordered, values = np.sort(np.asarray(first)), np.asarray(second)
    below, not_above = np.searchsorted(ordered, values, "left"), np.searchsorted(ordered, values, "right")
    return float((below + not_above).sum() / (2 * len(ordered) * len(values)))
