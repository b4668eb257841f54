"""A whole report: what it comes to, and every section that the results can fill."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from mbbench.report import selection, units
from mbbench.report.document import Figure, Page, Section, Table
from mbbench.report.sections import claims, curves, figures, grid, roofline, tables, versus
from mbbench.report.sections.claims import Claim
from mbbench.report.sections.notes import notes
from mbbench.report.sections.tables import Name
from mbbench.report.summary import headline
from mbbench.result import Result

_NEAR = 0.01  # of the best top-1: near enough to save time by


def page(stored: Sequence[Result]) -> Page:
    """The report of `stored` results, of which the newest of each cell counts."""
    results = selection.newest(stored)
    several = len({result.machine.id for result in results}) > 1

    def name(result: Result) -> str:
        device = f" {result.cell.device}" if result.cell.device else ""
        return f"{result.cell.label}{device}{f', {result.machine.cpu}' if several else ''}"

    found = claims.claims(results)
    whole = [one.result for one in selection.measured(results)]
    with_memory = [result for result in whole if result.measured.memory]
    audited = [result for result in whole if result.executed is not None]
    started = [result for result in whole if result.measured.cold is not None]
    sections = (
        _trade_off(results, name),
        _compression(results, name),
        _baselines(results, found),
        grid.section(results, several_machines=several),
        _cells(results, len(stored) - len(results), name),
        _plotted("latency", "Latency", whole, None, figures.distributions, name),
        _device(results, name),
        _plotted("memory", "Memory", with_memory, tables.memory, figures.memory, name),
        _energy(results, name),
        _plotted("precision", "Executed precision", audited, tables.executed, figures.executed, name),
        roofline.section(results, name),
        _plotted("cold-start", "Cold start", started, tables.cold, figures.cold, name),
        _served(results, name),
        _curves(results),
        _machines(results, name),
    )
    return Page(
        _title(results), tuple(_headline(results, found, name)), tuple(one for one in sections if one is not None)
    )


def _title(results: Sequence[Result]) -> str:
    """`0.5 MobileNet-128 on openvino`, `16 networks on 3 runtimes`."""
    subjects = selection.subjects(results)
    models = list(dict.fromkeys(result.cell.model.label for result in subjects))
    runtimes = list(dict.fromkeys(result.cell.backend for result in subjects))
    what = models[0] if len(models) == 1 else f"{len(models)} networks"
    return f"{what} on {runtimes[0] if len(runtimes) == 1 else f'{len(runtimes)} runtimes'}"


def _headline(results: Sequence[Result], found: Sequence[Claim], name: Name) -> Iterator[str]:
    yield headline(results)
    for group in selection.by_device(selection.subjects(results)).values():
        yield from _near_the_best(group, name)
    yield from _what_precision_buys(results)
    judged = [claim for claim in found if claim.verdict != "cannot be judged"]
    holding = sum(claim.verdict == "holds" for claim in judged)
    yield f"Of the paper's {len(judged)} claims that can be judged here, {holding} hold{'s' * (holding == 1)}."
    failed = sum(result.failure is not None for result in results)
    if failed:
        yield f"{failed} of {len(results)} cells failed; the notes say why."


def _near_the_best(group: Sequence[Result], name: Name) -> Iterator[str]:
    """The most accurate cell, and the fastest that comes near it."""
    front = selection.front(group)
    if len(front) < 2:
        return
    rated = [
        (m.latency.median_ms, top1, m.result)
        for m in selection.measured(front)
        if (top1 := m.result.top1()) is not None
    ]
    slow_ms, best, most = rated[-1]
    fast_ms, reached, fastest = next(one for one in rated if one[1] >= best - _NEAR)
    said = f"{name(most)} is the most accurate with {units.percent(best)} top-1 in {units.milliseconds(slow_ms)}"
    if fastest is not most:
        said += (
            f"; {name(fastest)} comes within {_NEAR * 100:g} point of it ({units.percent(reached)}) in"
            f" {units.milliseconds(fast_ms)}, {units.ratio(slow_ms, fast_ms)} faster"
        )
    yield f"{said}."


def _what_precision_buys(results: Sequence[Result]) -> Iterator[str]:
    """A sentence a runtime and precision: latency over fp32's, and the most top-1 lost."""
    groups: dict[tuple[str, str], list[tuple[Result, float]]] = {}
    for result, plain in tables.pairs(results):
        own_ms, plain_ms = result.median_ms(), plain.median_ms()
        if own_ms is not None and plain_ms is not None:
            groups.setdefault((result.cell.backend, result.cell.precision), []).append((result, own_ms / plain_ms))
    for (backend, precision), group in groups.items():
        times = [time for _, time in group]
        drops = [drop.share for result, _ in group
                 if (found := result.measured.accuracy) is not None and (drop := found.drop) is not None]  # fmt: skip
        span = f"{min(times):.2f}" if len(times) == 1 else f"{min(times):.2f} to {max(times):.2f}"
        said = f"On {backend}, {precision} takes {span} of fp32's time"
        if drops:
            said += f" and loses {max(drops) * 100:.2f} points of top-1{' at most' * (len(drops) > 1)}"
        yield f"{said} ({len(group)} network{'s' * (len(group) > 1)})."


def _cells(results: Sequence[Result], older: int, name: Name) -> Section:
    text = ["Brackets hold 95 % intervals. Latency is that of one blocking call, host memory to host memory."]
    if older:
        text.append(
            f"{older} older result{'s' * (older > 1)} of the same cells {'are' if older > 1 else 'is'} left out."
        )
    worth = tables.worth(results, name)
    return Section("cells", "Cells", tuple(text), (tables.speed(results, name), worth))


def _trade_off(results: Sequence[Result], name: Name) -> Section:
    groups = [
        (where, group, front)
        for where, group in selection.by_device(selection.subjects(results)).items()
        if (front := selection.front(group))
    ]
    return Section(
        "trade-off",
        "Accuracy against latency",
        () if groups else ("No accuracy was measured: random weights or images without labels have none.",),
        tuple(tables.trade_off(front, name, where) for where, _, front in groups),
        tuple(
            figures.trade_off(f"trade-off-{number}", group, front, name, where)
            for number, (where, group, front) in enumerate(groups)
        ),
    )


def _compression(results: Sequence[Result], name: Name) -> Section | None:
    table = tables.compression(results, name)
    if not table.rows:
        return None
    return Section("compression", "Compression", (), (table,))


def _baselines(results: Sequence[Result], found: Sequence[Claim]) -> Section:
    return Section("baselines", "Against VGG16 and GoogLeNet", (), (claims.table(found), *versus.tables(results)))


def _plotted(
    id: str,
    title: str,
    results: Sequence[Result],
    table: Callable[[Sequence[Result], Name], Table] | None,
    figure: Callable[[str, Sequence[Result], Name], Figure],
    name: Name,
) -> Section | None:
    """A table of all `results`, and a plot of those that stand for them."""
    shown = selection.representative(results)
    if not shown:
        return None
    made = () if table is None else (table(results, name),)
    return Section(id, title, _how_many(shown, results), made, (figure(f"{id}-plot", shown, name),))


def _how_many(shown: Sequence[Result], known: Sequence[Result]) -> tuple[str, ...]:
    if len(shown) == len(known):
        return ()
    return (
        f"The plot shows {len(shown)} of {len(known)} cells: the Pareto front, the fastest of each runtime and"
        " precision, and the baselines.",
    )


def _served(results: Sequence[Result], name: Name) -> Section | None:
    table = tables.served(results, name)
    return None if table is None else Section("throughput", "Throughput by scenario", (), (table,))


def _energy(results: Sequence[Result], name: Name) -> Section | None:
    table = tables.energy(results, name)
    reasons = dict.fromkeys(result.reasons["energy"] for result in results if "energy" in result.reasons)
    text = tuple(f"Not counted: {reason}." for reason in reasons)
    return Section("energy", "Energy", text, (table,) if table.rows else ()) if table.rows or text else None


def _device(results: Sequence[Result], name: Name) -> Section | None:
    table = tables.device(results, name)
    return Section("device", "On the device", (), (table,)) if table.rows else None


def _curves(results: Sequence[Result]) -> Section | None:
    found = tuple(table for result in results for table in curves.curves(result))
    return Section("curves", "Sustained load and duty cycle", (), found) if found else None


def _machines(results: Sequence[Result], name: Name) -> Section:
    warnings = tuple(notes(results)) or ("Nothing disturbed the measurements that mbbench would have noticed.",)
    found = (tables.machines(results), tables.settings(results), tables.soundness(results, name))
    return Section("machine", "Machine, settings and warnings", warnings, found)
