"""The full report: its headline, and every section that the results can fill."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from mbbench.analysis.pairing import representatives
from mbbench.report import selection
from mbbench.report.document import Figure, Page, Section, Table
from mbbench.report.headline import conclusions, failures
from mbbench.report.names import Name, namer
from mbbench.report.sections import claims, compression, curves, figures, grid, machines, roofline, tables, versus
from mbbench.report.sections.claims import Claim
from mbbench.report.sections.notes import collect_notes, weights_notes
from mbbench.result import Result

_NOTES_TITLE = "Machine, settings and warnings"


def build_page(stored: Sequence[Result], left_out: int = 0) -> Page:
    """Return the report of `stored` results; the most precise result of each setup counts.

    `left_out`: how many results were too many for the page, which says so.
    """
    counted = representatives(stored)
    results = selection.supported(counted)
    name = namer(counted)
    judged = claims.judge(results) if claims.concern(results) else []
    complete = [measurement.result for measurement in selection.measurements(results)]
    with_memory = [result for result in complete if result.measured.memory]
    with_precision = [result for result in complete if result.executed is not None]
    with_cold_start = [result for result in complete if result.measured.cold is not None]
    sections = (
        machines.section(results),
        _trade_off(results, name),
        compression.section(results, name),
        _baselines(results, judged),
        grid.section(results),
        _cells(results, len(stored) - len(counted), name),
        _plotted("latency", "Latency", complete, None, figures.distributions, name),
        _device(results, name),
        _plotted("memory", "Memory", with_memory, tables.memory, figures.memory, name),
        _energy(results, name),
        _plotted("precision", "Executed precision", with_precision, tables.executed, figures.executed, name),
        roofline.section(results, name),
        _plotted("cold-start", "Cold start", with_cold_start, tables.cold_start, figures.cold_start, name),
        _scenarios(results, name),
        _curves(results),
        _machines(counted, name),
    )
    return Page(
        _title(counted),
        (*_headline(counted, judged, name), *_left_out(left_out)),
        tuple(section for section in sections if section is not None),
    )


def _title(results: Sequence[Result]) -> str:
    """Return `0.5 MobileNet-128 on openvino` or `16 networks on 3 runtimes`."""
    subjects = selection.subjects(results)
    models = list(dict.fromkeys(result.cell.model.label for result in subjects))
    runtimes = list(dict.fromkeys(result.cell.backend for result in subjects))
    machine_count = len({result.machine.id for result in subjects})
    networks = models[0] if len(models) == 1 else f"{len(models)} networks"
    title = f"{networks} on {runtimes[0] if len(runtimes) == 1 else f'{len(runtimes)} runtimes'}"
    return f"{title}, {machine_count} machines" if machine_count > 1 else title


def _headline(results: Sequence[Result], judged: Sequence[Claim], name: Name) -> Iterator[str]:
    yield from conclusions(results, name)
    checked = [claim for claim in judged if claim.verdict != "cannot be checked"]
    if checked:
        holding = sum(claim.verdict == "holds" for claim in checked)
        count = f"All {holding}" if holding == len(checked) else f"{holding} of {len(checked)}"
        verb = "holds" if holding == 1 else "hold"
        yield f"{count} of the paper's claims that can be checked here {verb}."
    yield from failures(results, _NOTES_TITLE)


def _left_out(results: int) -> Iterator[str]:
    if results:
        yield (
            f"{results} older or repeated result{'s are' if results > 1 else ' is'} not on this page; a report in CSV"
            " or JSON has all."
        )


def _cells(results: Sequence[Result], left_out: int, name: Name) -> Section:
    text = [
        "Brackets hold 95 % confidence intervals. Latency is the time of one blocking call, from host memory to host"
        " memory."
    ]
    if left_out:
        text.append(
            f"{left_out} repeated result{'s' * (left_out > 1)} left out: of each cell the most precise one with the"
            " newest versions is shown."
        )
    text += weights_notes(results)
    return Section(
        "cells", "Cells", tuple(text), (tables.speed(results, name), tables.size_and_accuracy(results, name))
    )


def _trade_off(results: Sequence[Result], name: Name) -> Section | None:
    groups = [
        (title, group, front)
        for title, group in selection.comparable_groups(selection.subjects(results)).items()
        if (front := selection.pareto_front(group))
    ]
    if not groups:
        return None
    return Section(
        "trade-off",
        "Accuracy against latency",
        (),
        tuple(tables.pareto_front(front, name, title) for title, _, front in groups),
        tuple(
            figures.trade_off(f"trade-off-{number}", group, front, name, title)
            for number, (title, group, front) in enumerate(groups)
        ),
    )


def _baselines(results: Sequence[Result], judged: Sequence[Claim]) -> Section | None:
    section_tables = ([claims.table(judged)] if judged else []) + versus.tables(results)
    return Section("baselines", versus.section_title(results), (), tuple(section_tables)) if section_tables else None


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
    reasons = dict.fromkeys(
        (selection.chip(result), result.reasons["energy"]) for result in results if "energy" in result.reasons
    )
    several = len({selection.chip(result) for result in results}) > 1
    text = tuple(f"Not measured{f' on {chip}' * several}: {reason}." for chip, reason in reasons)
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
