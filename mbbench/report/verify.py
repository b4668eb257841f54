"""Whether a report says what its own records bear out: every figure recomputed, every line of the page made again."""

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
from mbbench.measure.latency import summarize
from mbbench.models.cost import cost_of
from mbbench.report.formats import html
from mbbench.result import Result
from mbbench.stats import mcnemar, paired_interval, wilson_interval

_TOLERANCE = 1e-9  # relative: sums may be taken in another order by another NumPy


@dataclass(frozen=True, slots=True)
class Verified:
    """`figures`: how many were recomputed; `lines`: of the page. `faults` are what does not agree, in words."""

    records: int
    figures: int
    lines: int
    faults: tuple[str, ...]


def verify(text: str, source: str) -> Verified:
    """Hold the page `text` against its records. Raises `UsageError` if it is no report."""
    results = html.records(text, source)
    faults: list[str] = []
    figures = 0
    for result in results:
        for name, stored, recomputed in recompute(result):
            plain = msgspec.to_builtins(recomputed)
            figures += _count(plain)
            differences = _differences(name, msgspec.to_builtins(stored), plain)
            faults += [f"{result.cell.label}: {difference}" for difference in differences]
    version = html.made_by(text)
    own = html.render(results, version)
    lines = _lines(text)
    faults += _page_faults(lines, _lines(own))
    if not faults and text != own:
        faults.append(
            "the page's scripts, styles or plots are not those that mbbench writes for these records"
            if version == metadata.version("mbbench")
            else f"mbbench {version} wrote it: verify its scripts and plots with that version"
        )
    return Verified(len(results), figures, len(lines), tuple(faults))


def recompute(result: Result) -> Iterator[tuple[str, object, object]]:
    """(name, what the record says, what follows from its raw parts) of every derived figure."""
    measured = result.measured
    if (latency := measured.latency) is not None:
        again, _ = summarize(
            [round(ms * 1e6) for ms in latency.samples_ms], batch=latency.batch, warmed=latency.warm_up
        )
        yield "latency", latency, again
    for one in measured.served:
        yield f"served.{one.scenario}.images_per_s", one.images_per_s, one.queries * one.batch / one.seconds
        if one.samples_ms:
            samples_ns = [round(ms * 1e6) for ms in one.samples_ms]
            served = scenarios.summarize(
                one.scenario, samples_ns, batch=one.batch, seconds=one.seconds, bound_ms=one.bound_ms
            )
            yield (
                f"served.{one.scenario}",
                one,
                replace(served, arrivals_per_s=one.arrivals_per_s, effective=one.effective),
            )
    if (throughput := measured.throughput) is not None:
        yield "throughput.images_per_s", throughput.images_per_s, throughput.images / throughput.seconds
    if (used := measured.energy) is not None:
        yield "energy", used, energy.summarize(used.counter, used.batch, used.stretches)
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
    if result.cost is None:
        return
    cost = cost_of(result.cell.model)
    yield "cost", result.cost, cost.info
    if result.executed is not None:
        yield "executed", result.executed, executed.audit(measured.layers, cost.layers)
    if result.layer_times is not None and measured.node_runs is not None:
        again_times = layer_times.attribute(measured.node_times, measured.node_runs, cost.layers, result.settings.batch)
        yield "layer_times", result.layer_times, again_times


def _differences(name: str, stored: Any, recomputed: Any) -> Iterator[str]:
    match stored, recomputed:
        case dict(), dict() if stored.keys() == recomputed.keys():
            for key in stored:
                yield from _differences(f"{name}.{key}", stored[key], recomputed[key])
        case (list() | tuple(), list() | tuple()) if len(stored) == len(recomputed):
            for index, (one, other) in enumerate(zip(stored, recomputed, strict=True)):
                yield from _differences(f"{name}[{index}]", one, other)
        case (int() | float(), int() | float()) if math.isclose(stored, recomputed, rel_tol=_TOLERANCE, abs_tol=1e-12):
            return
        case _ if stored == recomputed:
            return
        case None, _ if name.endswith((".imprecise", ".outliers", ".drift")):
            return  # records from before these were told
        case _:
            yield f"{name} is {stored}, recomputed {recomputed}"


def _count(value: Any) -> int:
    """The numbers in it, but for the raw samples."""
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
    import difflib

    faults = []
    matcher = difflib.SequenceMatcher(None, lines, expected, autojunk=False) if lines != expected else None
    for kind, start, end, own_start, own_end in matcher.get_opcodes() if matcher else ():
        if kind != "equal":
            said, meant = " | ".join(lines[start:end]), " | ".join(expected[own_start:own_end])
            faults.append(f"the page says {said!r} where the records give {meant!r}")
    return faults


def _lines(text: str) -> list[str]:
    """What a reader sees or hears: the text of every element, and the text alternatives of plots."""
    reader = _Reader()
    reader.feed(text)
    return reader.lines


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._silent = 0

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self._silent += tag in ("script", "style")
        self.lines += [value for name, value in attributes if name == "aria-label" and value]

    def handle_endtag(self, tag: str) -> None:
        self._silent -= tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        if not self._silent and data.strip():
            self.lines.append(data.strip())
