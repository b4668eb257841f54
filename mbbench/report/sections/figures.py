"""The plots of a report, as plain data for Plotly, each with a text alternative."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import cycle
from typing import Any

from mbbench.report import units
from mbbench.report.document import Figure
from mbbench.report.names import Name
from mbbench.report.selection import measurements
from mbbench.result import Phase, Result
from mbbench.stats import percentile, samples_needed

# Distinguishable by color-blind readers, with a contrast of at least 3 on the light and on the dark page.
COLORS = ("#2b7de9", "#d97400", "#12936f", "#b052d9", "#d6336c", "#7a7f00", "#0891b2", "#8b6b4a")
_SYMBOLS = {"fp32": "circle", "bf16": "square", "fp16": "diamond", "int8": "triangle-up"}
_ROW_PX, _FRAME_PX = 26, 140
_PHASES: tuple[tuple[Phase, str], ...] = (
    ("import", "import"), ("compile", "load and compile"), ("first_inference", "first inference"), ("steady", "steady"),
)  # fmt: skip


def trade_off(id: str, group: Sequence[Result], front: Sequence[Result], name: Name, title: str) -> Figure:
    """Return top-1 against median latency with the Pareto front; colors are runtimes, symbols are precisions."""
    traces: list[dict[str, Any]] = []
    backends = list(dict.fromkeys(result.cell.backend for result in group))
    for color, backend in zip(cycle(COLORS), backends, strict=False):
        for precision, symbol in _SYMBOLS.items():
            results = [r for r in group if (r.cell.backend, r.cell.precision) == (backend, precision)]
            points = [(m.latency.median_ms, top1, name(m.result))
                      for m in measurements(results) if (top1 := m.result.top1()) is not None]  # fmt: skip
            if points:
                traces.append(_scatter(points, f"{backend} {precision}", {"color": color, "symbol": symbol, "size": 9}))
    line = [(m.latency.median_ms, top1) for m in measurements(front) if (top1 := m.result.top1()) is not None]
    traces.append(
        {
            "type": "scatter", "mode": "lines", "name": "Pareto front", "hoverinfo": "skip",
            "x": [x for x, _ in line], "y": [y * 100 for _, y in line],
            "line": {"shape": "hv", "dash": "dot", "width": 1.5, "color": "#888888"},
        }
    )  # fmt: skip
    ends = [f"{name(r)} ({units.milliseconds(x)}, {units.percent(y)})" for r, (x, y) in zip(front, line, strict=True)]
    extent = f"has {len(front)} cells, from {ends[0]} to {ends[-1]}" if len(ends) > 1 else f"is one cell, {ends[0]}"
    layout = {
        "xaxis": {"title": {"text": "median latency, ms (logarithmic)"}, "type": "log"},
        "yaxis": {"title": {"text": "top-1, %"}},
    }
    alt = f"Top-1 against median latency of {len(group)} cells. The Pareto front {extent}."
    return Figure(id, f"Accuracy against latency: {title}", alt, tuple(traces), layout)


def distributions(id: str, results: Sequence[Result], name: Name) -> Figure:
    """Return a box per cell, relative to its median: quartiles, whiskers, and the median's interval as a notch.

    Whiskers are at p1 and p99, or where a cell has too few samples for them, at p10 and p90 or the extremes.
    """
    complete = measurements(results)
    tail = _whisker_share(min(measurement.latency.n for measurement in complete))
    whiskers = f"p{round(tail * 100)} and p{round((1 - tail) * 100)}" if tail else "the extremes"
    traces = []
    tails = {}
    for measurement in complete:
        latency = measurement.latency
        title = f"{name(measurement.result)}, {units.milliseconds(latency.median_ms)}"

        def relative(value: float, median: float = latency.median_ms) -> float:
            return (value / median - 1) * 100

        low_end, low, high, high_end = (
            relative(percentile(latency.samples_ms, q)) for q in (tail, 0.25, 0.75, 1 - tail)
        )
        tails[title] = high_end
        box: dict[str, Any] = {
            "type": "box", "orientation": "h", "name": title, "y": [title], "q1": [low], "median": [0.0], "q3": [high],
            "lowerfence": [low_end], "upperfence": [high_end], "line": {"color": COLORS[0]}, "showlegend": False,
        }  # fmt: skip
        if (interval := latency.median_ci95_ms) is not None:
            box["notchspan"] = [(relative(interval.high) - relative(interval.low)) / 2]
        traces.append(box)
    worst = max(tails, key=tails.__getitem__)
    subject = f"Spread of the latencies of {len(complete)} cells around their medians. The longest tail is that of"
    if len(complete) == 1:
        subject = "Spread of the latency of"
    alt = f"{subject} {worst}: it ends {tails[worst]:.1f} % above the median, with whiskers at {whiskers}."
    layout = {"xaxis": {"title": {"text": "relative to the cell's median, %"}, "zeroline": True}, "yaxis": _rows()}
    title = f"Spread of latency: quartiles (box), {whiskers} (whiskers), 95 % interval of the median (notch)"
    return Figure(id, title, alt, tuple(traces), layout, _height(len(complete)))


def _whisker_share(samples: int) -> float:
    """Return the share of samples beyond each whisker that this number of samples can show."""
    return next((1 - q for q in (0.99, 0.90) if samples >= samples_needed(q)), 0.0)


def memory(id: str, results: Sequence[Result], name: Name) -> Figure:
    """Return how much each phase adds to the peak memory of the process, as stacked bars."""
    traces = []
    before = [0] * len(results)
    for color, (phase, title) in zip(COLORS, _PHASES, strict=False):
        added = []
        for index, result in enumerate(results):
            reached = next((m.peak_rss_bytes for m in result.measured.memory if m.phase == phase), before[index])
            added.append((reached - before[index]) / 1e6)
            before[index] = reached
        traces.append(_bar([name(result) for result in results], added, title, color, "MB"))
    most = max(results, key=lambda result: result.peak_rss_bytes() or 0)
    peak = units.megabytes(most.peak_rss_bytes())
    alt = f"Peak memory by phase of {len(results)} cells. The highest is {peak}, of {name(most)}."
    return _stacked(id, "Peak memory by the phase that added it", alt, traces, "peak resident memory, MB", len(results))


def executed(id: str, results: Sequence[Result], name: Name) -> Figure:
    """Return the shares of Mult-Adds by executed precision, as stacked bars."""
    reported = [(result, info) for result in results if (info := result.executed) is not None]
    kinds = list(dict.fromkeys(share.precision for _, info in reported for share in info.shares))
    traces = []
    for color, kind in zip(COLORS, kinds, strict=False):
        shares = [
            100 * sum(share.mult_adds_share for share in info.shares if share.precision == kind) for _, info in reported
        ]
        traces.append(_bar([name(result) for result, _ in reported], shares, kind, color, "%"))
    alt = (
        f"Share of Mult-Adds that {len(reported)} cells execute in {' and '.join(kinds)}, as reported by the runtimes."
    )
    return _stacked(id, "Share of Mult-Adds by executed precision", alt, traces, "share of Mult-Adds, %", len(reported))


def cold_start(id: str, results: Sequence[Result], name: Name) -> Figure:
    """Return the parts of the cold start, as stacked bars."""
    started = [(result, start) for result in results if (start := result.measured.cold) is not None]
    parts: tuple[tuple[str, list[float]], ...] = (
        ("import", [start.import_s for _, start in started]),
        ("load", [start.load_s or 0.0 for _, start in started]),
        ("compile", [start.compile_s for _, start in started]),
        ("first inference", [start.first_inference_ms / 1e3 for _, start in started]),
    )
    names = [name(result) for result, _ in started]
    traces = [_bar(names, seconds, title, color, "s") for color, (title, seconds) in zip(COLORS, parts, strict=False)]
    totals = [sum(seconds[index] for _, seconds in parts) for index in range(len(started))]
    slowest = totals.index(max(totals))
    alt = f"Cold start of {len(started)} cells. The slowest takes {units.seconds(totals[slowest])}: {names[slowest]}."
    return _stacked(id, "From import to the first inference in a fresh process", alt, traces, "seconds", len(started))


def _scatter(points: Iterable[tuple[float, float, str]], name: str, marker: dict[str, Any]) -> dict[str, Any]:
    listed = list(points)
    return {
        "type": "scatter", "mode": "markers", "name": name, "marker": marker,
        "x": [x for x, _, _ in listed], "y": [y * 100 for _, y, _ in listed], "text": [text for _, _, text in listed],
        "hovertemplate": "%{text}<br>%{x:.3g} ms, %{y:.1f} %<extra></extra>",
    }  # fmt: skip


def _bar(names: Sequence[str], values: Sequence[float], title: str, color: str, unit: str) -> dict[str, Any]:
    return {
        "type": "bar", "orientation": "h", "name": title, "y": list(names), "x": list(values),
        "marker": {"color": color}, "hovertemplate": f"%{{y}}<br>{title}: %{{x:.3g}} {unit}<extra></extra>",
    }  # fmt: skip


def _stacked(id: str, title: str, alt: str, traces: Sequence[dict[str, Any]], axis: str, rows: int) -> Figure:
    layout = {
        "barmode": "stack",
        "legend": {"traceorder": "normal"},
        "xaxis": {"title": {"text": axis}},
        "yaxis": _rows(),
    }
    return Figure(id, title, alt, tuple(traces), layout, _height(rows))


def _rows() -> dict[str, Any]:
    """Return a category axis with the first name on top."""
    return {"autorange": "reversed", "automargin": True, "type": "category"}


def _height(rows: int) -> int:
    return _FRAME_PX + _ROW_PX * rows
