"""Where a call's time goes, layer by layer, and how near each layer comes to what the machine can do.

The roofline model is that of Williams, Waterman and Patterson (2009): a layer that does few Mult-Adds a byte is bound
by bandwidth, one that does many by arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mbbench.report import units
from mbbench.report.document import Figure, Section, Table
from mbbench.report.sections.figures import COLORS
from mbbench.report.selection import subjects
from mbbench.result import Ceilings, LayerTime, LayerTimes, Result

Name = Callable[[Result], str]
_SHOWN = 6  # networks in a report, the largest of each runtime and precision
_TYPES = ("Conv 1x1", "Conv DW 3x3", "Conv 3x3", "Fully connected")


def section(results: Sequence[Result], name: Name) -> Section | None:
    """None where no runtime told its layers' times."""
    largest: dict[tuple[str, ...], Result] = {}
    for result in subjects(results):
        if result.layer_times is None or result.cost is None:
            continue
        key = (result.machine.id, result.cell.backend, result.cell.device, result.cell.precision)
        other = largest.get(key)
        if other is None or other.cost is None or result.cost.mult_adds > other.cost.mult_adds:
            largest[key] = result
    if not largest:
        return None
    tables, figures = [], []
    for number, result in enumerate(list(largest.values())[:_SHOWN]):
        assert result.layer_times is not None
        tables.append(_by_type(result, result.layer_times, name))
        if result.ceilings is not None:
            figures.append(_figure(f"roofline-{number}", result, result.layer_times, result.ceilings, name))
    text = (
        "Times are the runtime's own, of the largest network it ran in each precision; what it fuses into a layer"
        " counts with it. Roofs are what short kernels reach on this machine with as many threads: arithmetic in each"
        " precision, and bandwidth from memory and from a core's caches. Bytes are a layer's input, weights and output,"
        " each once. G/s: billions of Mult-Adds a second. Roof: the share of the arithmetic roof. Moves only convert or"
        " reorder tensors."
    )
    return Section("layers", "Layers against the roofline", (text,), tuple(tables), tuple(figures))


def bound(layer: LayerTime, ceilings: Ceilings) -> str:
    """What a layer is bound by at the machine's best, its data coming from memory."""
    peak = ceilings.mult_adds_per_s.get(layer.precision)
    if peak is None:
        return "unknown"
    by_memory = layer.moved_bytes / ceilings.memory_bytes_per_s
    return "memory" if by_memory > layer.mult_adds / peak else "arithmetic"


def _by_type(result: Result, times: LayerTimes, name: Name) -> Table:
    total = sum(layer.median_ms for layer in times.layers) + times.moves_ms + times.other_ms
    mult_adds = sum(layer.mult_adds for layer in times.layers)
    rows = []
    for kind in dict.fromkeys((*_TYPES, *(layer.type for layer in times.layers))):
        own = [layer for layer in times.layers if layer.type == kind]
        if not own:
            continue
        spent = sum(layer.median_ms for layer in own)
        work = sum(layer.mult_adds for layer in own)
        rate = work / (spent / 1e3) if spent else None
        peaks = (
            [] if result.ceilings is None else [result.ceilings.mult_adds_per_s.get(layer.precision) for layer in own]
        )
        reached = rate / peaks[0] if rate is not None and peaks and peaks[0] and len(set(peaks)) == 1 else None
        rows.append(
            (
                kind, str(len(own)), units.number(spent), units.percent(spent / total), units.percent(work / mult_adds),
                units.number(None if rate is None else rate / 1e9), units.percent(reached),
            )
        )  # fmt: skip
    for kind, spent in (("moves", times.moves_ms), ("everything else", times.other_ms)):
        rows.append((kind, "", units.number(spent), units.percent(spent / total), "", "", ""))
    columns = ("Layer type", "Layers", "Time, ms", "Time", "Mult-Adds", "G/s", "Roof")
    return Table(f"Layers of {name(result)}", columns, tuple(rows))


def _figure(id: str, result: Result, times: LayerTimes, ceilings: Ceilings, name: Name) -> Figure:
    traces: list[dict[str, Any]] = []
    for kind, color in zip(_TYPES, COLORS, strict=False):
        own = [layer for layer in times.layers if layer.type == kind and layer.median_ms > 0]
        if own:
            traces.append(
                {
                    "type": "scatter", "mode": "markers", "name": kind, "marker": {"color": color, "size": 8},
                    "x": [layer.mult_adds / layer.moved_bytes for layer in own],
                    "y": [layer.mult_adds / (layer.median_ms / 1e3) / 1e9 for layer in own],
                    "text": [f"{layer.name}, {units.milliseconds(layer.median_ms)}" for layer in own],
                    "hovertemplate": "%{text}<br>%{x:.3g} Mult-Adds a byte, %{y:.3g} G Mult-Adds/s<extra></extra>",
                }
            )  # fmt: skip
    low, high = 0.1, 1000.0
    for precision, peak in ceilings.mult_adds_per_s.items():
        traces.append(_line(f"{precision} arithmetic", [low, high], [peak / 1e9] * 2, "dash"))
    for title, bandwidth in (("memory", ceilings.memory_bytes_per_s), ("cache", ceilings.cache_bytes_per_s)):
        ends = [low, min(high, max(ceilings.mult_adds_per_s.values()) / bandwidth)]
        traces.append(_line(f"{title} bandwidth", ends, [x * bandwidth / 1e9 for x in ends], "dot"))
    known = [layer for layer in times.layers if layer.precision in ceilings.mult_adds_per_s]
    by_memory = sum(bound(layer, ceilings) == "memory" for layer in known)
    alt = (
        f"Mult-Adds a second over Mult-Adds a byte of the {len(times.layers)} layers of {name(result)}, with the"
        f" machine's roofs; {by_memory} of the {len(known)} whose precision has a roof are bound by memory, the others"
        " by arithmetic."
    )
    layout = {
        "xaxis": {"title": {"text": "Mult-Adds a byte"}, "type": "log"},
        "yaxis": {"title": {"text": "G Mult-Adds/s"}, "type": "log"},
    }
    return Figure(id, f"Roofline: {name(result)}", alt, tuple(traces), layout, 460)


def _line(name: str, x: list[float], y: list[float], dash: str) -> dict[str, Any]:
    return {
        "type": "scatter", "mode": "lines", "name": name, "x": x, "y": y,
        "line": {"dash": dash, "width": 1.5, "color": "#888888"}, "hovertemplate": f"{name}: %{{y:.3g}}<extra></extra>",
    }  # fmt: skip
