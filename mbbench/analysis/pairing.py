"""Which results belong together: repetitions, the fp32 partner, the network before compression, the baselines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from mbbench.families import family_info
from mbbench.result import Result, Setup
from mbbench.spec import ModelSpec, Size


def representatives(results: Iterable[Result]) -> list[Result]:
    """Return the result that counts of each setup, in the order first measured.

    It is the most precise of those with the versions of the last: the narrowest interval of the median, among equals
    the last. A result that failed counts only if all others failed.
    """
    groups: dict[tuple[Setup, str], list[Result]] = {}
    for result in results:
        groups.setdefault((result.setup, result.cell.role), []).append(result)
    return [_most_precise([r for r in group if r.versions == group[-1].versions]) for group in groups.values()]


def _most_precise(group: Sequence[Result]) -> Result:
    return max(reversed(group), key=_precision)


def _precision(result: Result) -> tuple[bool, bool, float]:
    """Return a key that is larger for a more precise result."""
    latency = result.measured.latency
    interval = None if latency is None else latency.median_ci95_ms
    if latency is None or interval is None:
        return result.failure is None, False, 0.0 if latency is None else float(latency.n)
    return result.failure is None, True, -(interval.high - interval.low) / latency.median_ms


def by_setup(results: Iterable[Result], **ignored: Any) -> dict[Setup, Result]:
    """Return the results by their setups, with the fields in `ignored` replaced; the last result of a setup counts."""
    return {result.setup.same_but(**ignored): result for result in results}


def fp32_pairs(results: Sequence[Result]) -> list[tuple[Result, Result]]:
    """Return each result in a lower precision with the result of the same setup in fp32, if there is one.

    The test images may differ: neither speed nor the loss against fp32, which each result holds, depends on them.
    """
    in_fp32 = by_setup((result for result in results if result.cell.precision == "fp32"), data=None)
    return [
        (result, partner)
        for result in results
        if result.cell.precision != "fp32"
        and (partner := in_fp32.get(result.setup.same_but(precision="fp32", data=None))) is not None
    ]


def compression_pairs(results: Sequence[Result]) -> list[tuple[Result, Result]]:
    """Return each compressed result with that of what it was made from: the whole network in fp32.

    A network that was not pruned has its fp32 partner; a pruned one has the whole network of the same setup in fp32,
    with any weights.
    """
    unpruned_fp32 = by_setup(
        (r for r in results if r.cell.precision == "fp32" and r.cell.model.widths is None), weights=None, data=None
    )
    partners = {result.setup: partner for result, partner in fp32_pairs(results)}
    pairs = []
    for result in results:
        model = result.cell.model
        if model.widths is None:
            reference = partners.get(result.setup)
        else:
            setup = result.setup.same_but(model=replace(model, widths=None), weights=None, precision="fp32", data=None)
            reference = unpruned_fp32.get(setup)
        if reference is not None:
            pairs.append((result, reference))
    return pairs


def baselines_of(subject: Result, results: Iterable[Result]) -> list[Result]:
    """Return the baselines measured as the subject was, in its precision or else in fp32.

    Their resolution is the subject's, or the smallest that they accept if that is larger.
    """
    setup = subject.setup
    baselines = [
        result
        for result in results
        if result.cell.role == "baseline"
        and result.cell.model.size == _baseline_size(setup.model, result.cell.model)
        and result.setup.same_but(model=setup.model, weights=setup.weights, precision=setup.precision, data=setup.data)
        == setup
    ]
    same_precision = [result for result in baselines if result.cell.precision == setup.precision]
    return same_precision or [result for result in baselines if result.cell.precision == "fp32"]


def _baseline_size(subject: ModelSpec, baseline: ModelSpec) -> Size:
    side = max(max(subject.size), family_info(baseline.family).smallest)
    return side, side
