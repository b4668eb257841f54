"""Verification of an HTML report: recompute every figure of its records and render its page again."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from importlib import metadata
from typing import Any

import msgspec

from mbbench.analysis import executed, layer_times
from mbbench.measure import energy, scenarios
from mbbench.measure.latency import latency_figures
from mbbench.models import files
from mbbench.models.cost import cost_of
from mbbench.report.formats import html
from mbbench.result import Result
from mbbench.stats import mcnemar, paired_interval, wilson_interval

_TOLERANCE = 1e-9  # relative: another release of NumPy may sum in another order


@dataclass(frozen=True, slots=True)
class Verification:
    """The outcome of verifying a page.

    `records`: records in the page. `figures`: figures recomputed. `lines`: lines of text compared. `faults`: the
    contradictions, in words.
    """

    records: int
    figures: int
    lines: int
    faults: tuple[str, ...]


def verify(text: str, source: str) -> Verification:
    """Compare the page `text` with its own records. Raises `UsageError` if `text` is not a report of mbbench."""
    results = html.read_records(text, source)
    faults: list[str] = []
    figures = 0
    for result in results:
        for name, stored, recomputed in recompute(result):
            plain = msgspec.to_builtins(recomputed)
            figures += _count(plain)
            differences = _differences(name, msgspec.to_builtins(stored), plain)
            faults += [f"{result.cell.label}: {difference}" for difference in differences]
    version = html.writer_version(text)
    expected = html.render(results, version, html.results_left_out(text))
    lines = _lines(text)
    faults += _page_faults(lines, _lines(expected))
    if not faults and text != expected:
        faults.append(
            "the page's scripts, styles or plots differ from those that mbbench writes for these records"
            if version == metadata.version("mbbench")
            else f"the page was written by mbbench {version}: verify its scripts and plots with that version"
        )
    return Verification(len(results), figures, len(lines), tuple(faults))


def recompute(result: Result) -> Iterator[tuple[str, object, object]]:
    """Yield the name, the stored value and the value recomputed from raw data, for every derived figure."""
    measured = result.measured
    if (latency := measured.latency) is not None:
        recomputed, _ = latency_figures(
            [round(ms * 1e6) for ms in latency.samples_ms], batch=latency.batch, warmed=latency.warm_up
        )
        yield "latency", latency, recomputed
    for served in measured.served:
        samples_ns = [round(ms * 1e6) for ms in served.samples_ms]
        seconds = served.seconds
        if served.arrivals_per_s is not None:  # the arrivals follow from their rate
            due_ns = scenarios.poisson_arrivals(served.arrivals_per_s, served.queries)
            seconds = scenarios.seconds_to_last_completion(due_ns, samples_ns)
        yield (
            f"served.{served.scenario}.images_per_s",
            served.images_per_s,
            served.queries * served.batch / seconds,
        )
        if samples_ns:
            summary = scenarios.scenario_figures(
                served.scenario, samples_ns, batch=served.batch, seconds=seconds, bound_ms=served.bound_ms
            )
            yield (
                f"served.{served.scenario}",
                served,
                replace(summary, arrivals_per_s=served.arrivals_per_s, effective=served.effective),
            )
    if (throughput := measured.throughput) is not None:
        yield "throughput.images_per_s", throughput.images_per_s, throughput.images / throughput.seconds
        for rate in measured.throughputs:
            name = f"throughputs.batch_{rate.batch}.images_per_s"
            yield name, rate.images_per_s, rate.images / rate.seconds
        if measured.throughputs:
            yield "throughput", throughput, max(measured.throughputs, key=lambda rate: rate.images_per_s)
    if (used := measured.energy) is not None:
        yield "energy", used, energy.energy_figures(used.counter, used.batch, used.stretches)
    if (accuracy := measured.accuracy) is not None:
        n = accuracy.images
        yield "accuracy.agreement_ci95", accuracy.agreement_ci95, wilson_interval(round(accuracy.agreement * n), n)
        for name in ("top1", "top5"):
            share, interval = getattr(accuracy, name), getattr(accuracy, f"{name}_ci95")
            if share is not None:
                yield f"accuracy.{name}_ci95", interval, wilson_interval(round(share * n), n)
        if accuracy.wrong is not None and accuracy.top1 is not None:
            yield "accuracy.top1", accuracy.top1, (n - len(accuracy.wrong)) / n
        if (drop := accuracy.drop) is not None:
            lost, gained = drop.only_reference_right, drop.only_this_right
            yield "accuracy.drop.share", drop.share, (lost - gained) / n
            yield "accuracy.drop.ci95", drop.ci95, paired_interval(lost, gained, n)
            yield "accuracy.drop.p_value", drop.p_value, mcnemar(lost, gained)
    model = result.cell.model
    if result.cost is None or (model.is_file and not files.is_known(model)):
        return
    cost = cost_of(model)
    yield "cost", result.cost, cost.info
    if result.executed is not None:
        yield "executed", result.executed, executed.audit(measured.layers, cost.layers)
    if result.layer_times is not None and measured.node_runs is not None:
        times = layer_times.attribute(measured.node_times, measured.node_runs, cost.layers, result.settings.batch)
        yield "layer_times", result.layer_times, times


def _differences(name: str, stored: Any, recomputed: Any) -> Iterator[str]:
    """Yield a sentence for each value inside `stored` that differs from the recomputed one."""
    match stored, recomputed:
        case dict(), dict() if stored.keys() == recomputed.keys():
            for key in stored:
                yield from _differences(f"{name}.{key}", stored[key], recomputed[key])
        case (list() | tuple(), list() | tuple()) if len(stored) == len(recomputed):
            for index, pair in enumerate(zip(stored, recomputed, strict=True)):
                yield from _differences(f"{name}[{index}]", *pair)
        case (int() | float(), int() | float()) if math.isclose(stored, recomputed, rel_tol=_TOLERANCE, abs_tol=1e-12):
            return
        case _ if stored == recomputed:
            return
        case None, _ if name.endswith((".imprecise", ".outliers", ".drift")):
            return  # the record is older than these fields
        case _:
            yield f"{name} is {stored} in the record but {recomputed} when recomputed"


def _count(value: Any) -> int:
    """Return how many numbers `value` holds, raw samples excluded."""
    match value:
        case dict():
            return sum(_count(inner) for key, inner in value.items() if key != "samples_ms")
        case list() | tuple():
            return sum(map(_count, value))
        case bool() | str() | None:
            return 0
        case _:
            return 1


def _page_faults(lines: Sequence[str], expected: Sequence[str]) -> list[str]:
    """Return a sentence for each run of lines that differs from what the records give."""
    import difflib

    if lines == expected:
        return []
    matcher = difflib.SequenceMatcher(None, lines, expected, autojunk=False)
    return [
        f"the page shows {' | '.join(lines[start:end])!r}, its records give"
        f" {' | '.join(expected[expected_start:expected_end])!r}"
        for kind, start, end, expected_start, expected_end in matcher.get_opcodes()
        if kind != "equal"
    ]


def _lines(text: str) -> list[str]:
    """Return what a person reads or hears: the text of every element, and the text alternatives of plots."""
    reader = _Reader()
    reader.feed(text)
    return reader.lines


class _Reader(HTMLParser):
    """A collector of visible text and `aria-label` attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._hidden = 0  # depth inside elements whose text is not shown

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self._hidden += tag in ("script", "style")
        self.lines += [value for name, value in attributes if name == "aria-label" and value]

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        if not self._hidden and data.strip():
            self.lines.append(data.strip())
