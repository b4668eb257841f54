"""The results that a report covers, and the subsets that its sections compare or plot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mbbench.result import Latency, Result
from mbbench.spec import Cell

_MAX_PLOTTED = 24  # cells in a plot that has a row per cell: more rows are illegible


@dataclass(frozen=True, slots=True)
class Measurement:
    """A result and its latency."""

    result: Result
    latency: Latency


def newest(results: Iterable[Result]) -> list[Result]:
    """Return the last result of each cell, machine, thread count and batch size, in the order first measured."""
    latest: dict[tuple[str, Cell, int, int], Result] = {}
    for result in results:
        latest[result.machine.id, result.cell, result.settings.threads, result.settings.batch] = result
    return list(latest.values())


def measurements(results: Iterable[Result]) -> list[Measurement]:
    """Return the results that have a latency and did not fail."""
    return [
        Measurement(result, result.measured.latency)
        for result in results
        if result.measured.latency is not None and result.failure is None
    ]


def subjects(results: Iterable[Result]) -> list[Result]:
    """Return the results that are not baselines."""
    return [result for result in results if result.cell.role == "subject"]


def device_label(result: Result) -> str:
    """Return the chip and the thread count; latencies are comparable on the same ones only."""
    chip = result.measured.effective.get("device", result.machine.cpu) if result.cell.device else result.machine.cpu
    threads = result.settings.threads
    return f"{chip}, {threads} thread{'s' * (threads > 1)}"


def pareto_front(results: Iterable[Result]) -> list[Result]:
    """Return the Pareto front of latency and top-1, fastest first: each result is more accurate than all faster ones.

    The results must be of one device and one set of images.
    """
    rated = sorted(
        (
            (measurement.latency.median_ms, -top1, measurement.result)
            for measurement in measurements(results)
            if (top1 := measurement.result.top1()) is not None
        ),
        key=lambda row: row[:2],
    )
    front: list[Result] = []
    best = 1.0  # negative top-1; above every real one, so that the fastest is on the front, even with a top-1 of 0
    for _, negative_top1, result in rated:
        if negative_top1 < best:
            best = negative_top1
            front.append(result)
    return front


def representative(results: Sequence[Result]) -> list[Result]:
    """Return the results to plot with a row each, fastest first.

    If there are more than 24: the Pareto fronts, the fastest of each runtime and precision, and the baselines.
    """
    complete = [
        measurement.result
        for measurement in sorted(measurements(results), key=lambda measurement: measurement.latency.median_ms)
    ]
    if len(complete) <= _MAX_PLOTTED:
        return complete
    fastest: dict[tuple[str, ...], Result] = {}
    for result in subjects(complete):
        fastest.setdefault((result.machine.id, result.cell.backend, result.cell.precision), result)
    fronts = [result for group in comparable_groups(subjects(complete)).values() for result in pareto_front(group)]
    baselines = [result for result in complete if result.cell.role == "baseline"]
    chosen = {id(result) for result in (*fronts, *fastest.values(), *baselines)}
    return [result for result in complete if id(result) in chosen][:_MAX_PLOTTED]


def comparable_groups(results: Iterable[Result]) -> dict[str, list[Result]]:
    """Group results whose latencies and accuracies are comparable: one device, one set of test images."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        data = "" if result.data is None else f", {result.data.images} images of {result.data.name}"
        groups.setdefault(f"{device_label(result)}{data}", []).append(result)
    return groups


def fp32_pairs(results: Sequence[Result]) -> list[tuple[Result, Result]]:
    """Return each result in a lower precision with the result of the same cell in fp32, if there is one."""

    def key(result: Result) -> tuple[object, ...]:
        cell = result.cell
        return (result.machine.id, cell.model, cell.role, cell.backend, cell.device, result.settings.threads)

    in_fp32 = {key(result): result for result in results if result.cell.precision == "fp32"}
    return [
        (result, partner)
        for result in results
        if result.cell.precision != "fp32" and (partner := in_fp32.get(key(result))) is not None
    ]
