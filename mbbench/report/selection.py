"""Which of the stored results a report speaks of, and which of them stand for the others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mbbench.result import Latency, Result
from mbbench.spec import Cell

_SHOWN = 24  # cells in a plot with a row each; more could not be told apart


@dataclass(frozen=True, slots=True)
class Measurement:
    """A result that has a latency."""

    result: Result
    latency: Latency


def newest(results: Iterable[Result]) -> list[Result]:
    """The last result of each cell on each machine, with the same threads and batch, in the order first measured."""
    found: dict[tuple[str, Cell, int, int], Result] = {}
    for result in results:
        found[result.machine.id, result.cell, result.settings.threads, result.settings.batch] = result
    return list(found.values())


def measured(results: Iterable[Result]) -> list[Measurement]:
    """Those that were measured to their end."""
    return [
        Measurement(result, result.measured.latency)
        for result in results
        if result.measured.latency is not None and result.failure is None
    ]


def subjects(results: Iterable[Result]) -> list[Result]:
    return [result for result in results if result.cell.role == "subject"]


def device(result: Result) -> str:
    """The chip that latencies may be compared on: that of the machine, or the device asked for."""
    chip = result.measured.effective.get("device", result.machine.cpu) if result.cell.device else result.machine.cpu
    threads = result.settings.threads
    return f"{chip}, {threads} thread{'s' * (threads > 1)}"


def front(results: Iterable[Result]) -> list[Result]:
    """The Pareto front of latency and top-1, fastest first: each answers better than all that are as fast.

    Compare only results of one device and one set of images.
    """
    rated = sorted(
        ((m.latency.median_ms, -top1, m.result) for m in measured(results) if (top1 := m.result.top1()) is not None),
        key=lambda one: one[:2],
    )
    best: list[Result] = []
    reached = 1.0
    for _, negative, result in rated:
        if negative < reached:
            reached = negative
            best.append(result)
    return best


def representative(results: Sequence[Result]) -> list[Result]:
    """What a plot with a row a cell shows: all, or of many the front, each runtime's fastest, and the baselines."""
    whole = [m.result for m in sorted(measured(results), key=lambda m: m.latency.median_ms)]
    if len(whole) <= _SHOWN:
        return whole
    fastest: dict[tuple[str, ...], Result] = {}
    for result in subjects(whole):
        fastest.setdefault((result.machine.id, result.cell.backend, result.cell.precision), result)
    fronts = [one for group in by_device(subjects(whole)).values() for one in front(group)]
    baselines = [result for result in whole if result.cell.role == "baseline"]
    wanted = {id(result) for result in (*fronts, *fastest.values(), *baselines)}
    return [result for result in whole if id(result) in wanted][:_SHOWN]


def by_device(results: Iterable[Result]) -> dict[str, list[Result]]:
    """Groups whose latencies and accuracies may be compared: one device, one set of test images."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        data = "" if result.data is None else f", {result.data.images} images of {result.data.name}"
        groups.setdefault(f"{device(result)}{data}", []).append(result)
    return groups
