"""The full report: its headline, and every section that the results can fill."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from mbbench.report import selection, units
from mbbench.report.document import Figure, Page, Section, Table
from mbbench.report.sections import claims, curves, figures, grid, roofline, tables, versus
from mbbench.report.sections.claims import Claim
from mbbench.report.sections.notes import collect_notes
from mbbench.report.sections.tables import Name
from mbbench.report.summary import headline
from mbbench.result import Result

_MAX_TOP1_GAP = 0.01  # to the best top-1: a faster cell within this gap is worth naming
_NOTES_TITLE = "Machine, settings and warnings"


def build_page(stored: Sequence[Result]) -> Page:
    """Return the report of `stored` results; the newest of each cell counts."""
    results = selection.newest(stored)
    several_machines = len({result.machine.id for result in results}) > 1

    def name(result: Result) -> str:
        device = f" {result.cell.device}" if result.cell.device else ""
        return f"{result.cell.label}{device}{f', {result.machine.cpu}' if several_machines else ''}"

    judged = claims.judge(results)
    complete = [measurement.result for measurement in selection.measurements(results)]
    with_memory = [result for result in complete if result.measured.memory]
    with_precision = [result for result in complete if result.executed is not None]
    with_cold_start = [result for result in complete if result.measured.cold is not None]
    sections = (
        _trade_off(results, name),
        _compression(results, name),
        _baselines(results, judged),
        grid.section(results, several_machines=several_machines),
        _cells(results, len(stored) - len(results), name),
        _plotted("latency", "Latency", complete, None, figures.distributions, name),
        _device(results, name),
        _plotted("memory", "Memory", with_memory, tables.memory, figures.memory, name),
        _energy(results, name),
        _plotted("precision", "Executed precision", with_precision, tables.executed, figures.executed, name),
        roofline.section(results, name),
        _plotted("cold-start", "Cold start", with_cold_start, tables.cold_start, figures.cold_start, name),
        _scenarios(results, name),
        _curves(results),
        _machines(results, name),
    )
    return Page(
        _title(results),
        tuple(_headline(results, judged, name)),
        tuple(section for section in sections if section is not None),
    )


def _title(results: Sequence[Result]) -> str:
    """Return `0.5 MobileNet-128 on openvino` or `16 networks on 3 runtimes`."""
    subjects = selection.subjects(results)
    models = list(dict.fromkeys(result.cell.model.label for result in subjects))
    runtimes = list(dict.fromkeys(result.cell.backend for result in subjects))
    networks = models[0] if len(models) == 1 else f"{len(models)} networks"
    return f"{networks} on {runtimes[0] if len(runtimes) == 1 else f'{len(runtimes)} runtimes'}"


def _headline(results: Sequence[Result], judged: Sequence[Claim], name: Name) -> Iterator[str]:
    yield headline(results)
    for group in selection.comparable_groups(selection.subjects(results)).values():
        yield from _most_accurate(group, name)
    yield from _effect_of_precision(results)
    checked = [claim for claim in judged if claim.verdict != "cannot be checked"]
    holding = sum(claim.verdict == "holds" for claim in checked)
    yield f"Of the paper's claims that can be checked here, {holding} of {len(checked)} hold{'s' * (holding == 1)}."
    failed = sum(result.failure is not None for result in results)
    if failed:
        yield f"{failed} of {len(results)} cells failed; the reasons are under {_NOTES_TITLE}."


def _most_accurate(group: Sequence[Result], name: Name) -> Iterator[str]:
    """Yield a sentence on the most accurate cell, and on the fastest cell whose top-1 is within 1 point of it."""
    front = selection.pareto_front(group)
    if len(front) < 2:
        return
    rated = [
        (measurement.latency.median_ms, top1, measurement.result)
        for measurement in selection.measurements(front)
        if (top1 := measurement.result.top1()) is not None
    ]
    best_ms, best_top1, best = rated[-1]
    fast_ms, fast_top1, fast = next(row for row in rated if row[1] >= best_top1 - _MAX_TOP1_GAP)
    text = f"{name(best)} is the most accurate: {units.percent(best_top1)} top-1 in {units.milliseconds(best_ms)}"
    if fast is not best:
        text += (
            f"; {name(fast)} is within {_MAX_TOP1_GAP * 100:g} point of it ({units.percent(fast_top1)}) in"
            f" {units.milliseconds(fast_ms)}, {units.ratio(best_ms, fast_ms)} faster"
        )
    yield f"{text}."


def _effect_of_precision(results: Sequence[Result]) -> Iterator[str]:
    """Yield a sentence for each runtime and lower precision: its latency relative to fp32, and the largest loss."""
    groups: dict[tuple[str, str], list[tuple[Result, float]]] = {}
    for result, partner in selection.fp32_pairs(results):
        median_ms, fp32_ms = result.median_ms(), partner.median_ms()
        if median_ms is not None and fp32_ms is not None:
            groups.setdefault((result.cell.backend, result.cell.precision), []).append((result, median_ms / fp32_ms))
    for (backend, precision), group in groups.items():
        ratios = [ratio for _, ratio in group]
        drops = [accuracy.drop.share for result, _ in group
                 if (accuracy := result.measured.accuracy) is not None and accuracy.drop is not None]  # fmt: skip
        span = f"{min(ratios):.2f}" if len(ratios) == 1 else f"{min(ratios):.2f} to {max(ratios):.2f}"
        text = f"On {backend}, {precision} takes {span} times as long as fp32"
        if drops:
            text += f" and loses {'at most ' * (len(drops) > 1)}{max(drops) * 100:.2f} points of top-1"
        yield f"{text} ({len(group)} network{'s' * (len(group) > 1)})."


def _cells(results: Sequence[Result], older: int, name: Name) -> Section:
    text = [
        "Brackets hold 95 % confidence intervals. Latency is the time of one blocking call, from host memory to host"
        " memory."
    ]
    if older:
        text.append(
            f"{older} older result{'s' * (older > 1)} of the same cells {'are' if older > 1 else 'is'} left out."
        )
    return Section(
        "cells", "Cells", tuple(text), (tables.speed(results, name), tables.size_and_accuracy(results, name))
    )


def _trade_off(results: Sequence[Result], name: Name) -> Section:
    groups = [
        (title, group, front)
        for title, group in selection.comparable_groups(selection.subjects(results)).items()
        if (front := selection.pareto_front(group))
    ]
    return Section(
        "trade-off",
        "Accuracy against latency",
        () if groups else ("No accuracy was measured: it needs trained weights and images with labels.",),
        tuple(tables.pareto_front(front, name, title) for title, _, front in groups),
        tuple(
            figures.trade_off(f"trade-off-{number}", group, front, name, title)
            for number, (title, group, front) in enumerate(groups)
        ),
    )


def _compression(results: Sequence[Result], name: Name) -> Section | None:
    table = tables.compression(results, name)
    if not table.rows:
        return None
    return Section("compression", "Compression", (), (table,))


def _baselines(results: Sequence[Result], judged: Sequence[Claim]) -> Section:
    return Section("baselines", "Against VGG16 and GoogLeNet", (), (claims.table(judged), *versus.tables(results)))


def _plotted(
    id: str,
    title: str,
    results: Sequence[Result],
    table: Callable[[Sequence[Result], Name], Table] | None,
    figure: Callable[[str, Sequence[Result], Name], Figure],
    name: Name,
) -> Section | None:
    """Return a section with a table of all `results` and a plot of the representative ones, or None without any."""
    plotted = selection.representative(results)
    if not plotted:
        return None
    section_tables = () if table is None else (table(results, name),)
    text = _plotted_count(len(plotted), len(results))
    return Section(id, title, text, section_tables, (figure(f"{id}-plot", plotted, name),))


def _plotted_count(plotted: int, total: int) -> tuple[str, ...]:
    if plotted == total:
        return ()
    return (
        f"The plot shows {plotted} of {total} cells: the Pareto front, the fastest cell of each runtime and precision,"
        " and the baselines.",
    )


def _scenarios(results: Sequence[Result], name: Name) -> Section | None:
    table = tables.scenarios(results, name)
    return None if table is None else Section("throughput", "Throughput by scenario", (), (table,))


def _energy(results: Sequence[Result], name: Name) -> Section | None:
    table = tables.energy(results, name)
    reasons = dict.fromkeys(result.reasons["energy"] for result in results if "energy" in result.reasons)
    text = tuple(f"Not measured: {reason}." for reason in reasons)
    return Section("energy", "Energy", text, (table,) if table.rows else ()) if table.rows or text else None


def _device(results: Sequence[Result], name: Name) -> Section | None:
    table = tables.device(results, name)
    return Section("device", "On the device", (), (table,)) if table.rows else None


def _curves(results: Sequence[Result]) -> Section | None:
    section_tables = tuple(table for result in results for table in curves.curve_tables(result))
    return Section("curves", "Sustained load and duty cycle", (), section_tables) if section_tables else None


def _machines(results: Sequence[Result], name: Name) -> Section:
    notes = tuple(collect_notes(results)) or ("No disturbance of the measurements was detected.",)
    section_tables = (tables.machines(results), tables.settings(results), tables.latency_quality(results, name))
    return Section("machine", _NOTES_TITLE, notes, section_tables)
