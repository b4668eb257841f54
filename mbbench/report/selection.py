"""The results that a report covers, and the subsets that its sections compare or plot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mbbench.result import Latency, Result

_MAX_PLOTTED = 24  # cells in a plot that has a row per cell: more rows are illegible


@dataclass(frozen=True, slots=True)
class Measurement:
    """A result and its latency."""

    result: Result
    latency: Latency


def measurements(results: Iterable[Result]) -> list[Measurement]:
    """Return the results that have a latency and did not fail."""
    return [
        Measurement(result, result.measured.latency)
        for result in results
        if result.measured.latency is not None and result.failure is None
    ]


def supported(results: Iterable[Result]) -> list[Result]:
    """Return the results without cells that their runtimes do not support; notes have the reasons."""
    return [result for result in results if result.failure is None or not result.failure.is_unsupported]


def subjects(results: Iterable[Result]) -> list[Result]:
    """Return the results that are not baselines."""
    return [result for result in results if result.cell.role == "subject"]


def chip(result: Result) -> str:
    """Return the full name of the processor that computed: the CPU's, or the device's."""
    if result.setup.on_cpu:
        return result.machine.cpu
    return result.measured.effective.get("device", result.cell.device)


def device_label(result: Result) -> str:
    """Return the chip, the thread count and the batch size: latencies are comparable with these equal."""
    threads, batch = result.settings.threads, result.settings.batch
    return f"{chip(result)}, {threads} thread{'s' * (threads > 1)}{f', batch {batch}' * (batch > 1)}"


def images_label(result: Result) -> str:
    """Return the name and size of the set of test images, or an empty string; the resolution is the network's."""
    return "" if result.data is None else f"{result.data.images} images of {result.data.name}"


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

    If there are more than 24: the Pareto fronts, the fastest of each runtime, device and precision, and the baselines.
    """
    complete = [
        measurement.result
        for measurement in sorted(measurements(results), key=lambda measurement: measurement.latency.median_ms)
    ]
    if len(complete) <= _MAX_PLOTTED:
        return complete
    fastest: dict[tuple[str, ...], Result] = {}
    for result in subjects(complete):
        setup = result.setup
        fastest.setdefault((setup.machine, setup.backend, setup.device, setup.precision), result)
    fronts = [result for group in comparable_groups(subjects(complete)).values() for result in pareto_front(group)]
    baselines = [result for result in complete if result.cell.role == "baseline"]
    chosen = {id(result) for result in (*fronts, *fastest.values(), *baselines)}
    return [result for result in complete if id(result) in chosen][:_MAX_PLOTTED]


def comparable_groups(results: Iterable[Result]) -> dict[str, list[Result]]:
    """Group results whose latencies and accuracies are comparable, under a title.

    A group has one machine, device, thread count, batch size and set of test images.
    """
    groups: dict[tuple[str, str, str], list[Result]] = {}
    for result in results:
        groups.setdefault((result.setup.machine, device_label(result), images_label(result)), []).append(result)
    titles: dict[str, list[Result]] = {}
    for (machine, device, images), group in groups.items():
        title = f"{device}, {images}" if images else device
        titles[title if title not in titles else f"{title} (machine {machine})"] = group
    return titles
