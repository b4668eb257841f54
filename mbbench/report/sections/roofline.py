"""The time of each layer, and how close its rate comes to the machine's ceilings.

The roofline model is that of Williams, Waterman and Patterson (2009): a layer with few Mult-Adds per byte is bound by
bandwidth, one with many by arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mbbench.report import units
from mbbench.report.document import Figure, Section, Table
from mbbench.report.names import Name
from mbbench.report.sections.figures import COLORS
from mbbench.report.selection import subjects
from mbbench.result import Ceilings, LayerTime, LayerTimes, Result, Setup
from mbbench.spec import ModelSpec

_MAX_NETWORKS = 6
_TYPES = ("Conv 1x1", "Conv DW 3x3", "Conv 3x3", "Fully connected")


def section(results: Sequence[Result], name: Name) -> Section | None:
    """Return layer tables and roofline plots of the largest networks, or None if no runtime reports layer times."""
    largest: dict[Setup, Result] = {}
    for result in subjects(results):
        if result.layer_times is None or result.cost is None:
            continue
        key = result.setup.same_but(model=ModelSpec(), weights=None, data=None)
        previous = largest.get(key)
        if previous is None or previous.cost is None or result.cost.mult_adds > previous.cost.mult_adds:
            largest[key] = result
    if not largest:
        return None
    tables, figures = [], []
    for number, result in enumerate(list(largest.values())[:_MAX_NETWORKS]):
        assert result.layer_times is not None
        tables.append(_by_type(result, result.layer_times, name))
        if result.ceilings is not None:
            figures.append(_figure(f"roofline-{number}", result, result.layer_times, result.ceilings, name))
    text = (
        "Times are as reported by each runtime, for the largest network it ran in each precision; operations fused into"
        " a layer count as part of it. Roofs are the rates that short library kernels reach on this machine with the"
        " same number of threads: arithmetic in each precision, and bandwidth from memory and from a core's caches."
        " Bytes are a layer's input, weights and output, counted once each. G/s: billions of Mult-Adds per second."
        " Roof: share of the arithmetic roof; above 100 %, the layer is faster than the kernel that set the roof."
        " Moves: nodes that only convert or reorder tensors."
    )
    texts = [text]
    if len(largest) > _MAX_NETWORKS:
        texts.append(
            f"{_MAX_NETWORKS} of {len(largest)} runtimes and precisions are shown; `mbbench report -o report.json` has"
            " all layer times."
        )
    return Section("layers", "Layers against the roofline", tuple(texts), tuple(tables), tuple(figures))


def bottleneck(layer: LayerTime, ceilings: Ceilings) -> str:
    """Return `memory`, `arithmetic` or `unknown`: what limits a layer at the ceilings, with its data in memory."""
    peak = ceilings.mult_adds_per_s.get(layer.precision)
    if peak is None:
        return "unknown"
    memory_s = layer.moved_bytes / ceilings.memory_bytes_per_s
    return "memory" if memory_s > layer.mult_adds / peak else "arithmetic"


def _by_type(result: Result, times: LayerTimes, name: Name) -> Table:
    """Return time, work and rate of each layer type."""
    total_ms = sum(layer.median_ms for layer in times.layers) + times.moves_ms + times.other_ms
    total_mult_adds = sum(layer.mult_adds for layer in times.layers)
    rows = []
    for kind in dict.fromkeys((*_TYPES, *(layer.type for layer in times.layers))):
        layers = [layer for layer in times.layers if layer.type == kind]
        if not layers:
            continue
        time_ms = sum(layer.median_ms for layer in layers)
        mult_adds = sum(layer.mult_adds for layer in layers)
        rate = mult_adds / (time_ms / 1e3) if time_ms else None
        peaks = [] if result.ceilings is None else [
            result.ceilings.mult_adds_per_s.get(layer.precision) for layer in layers
        ]  # fmt: skip
        roof_share = rate / peaks[0] if rate is not None and peaks and peaks[0] and len(set(peaks)) == 1 else None
        rows.append(
            (
                kind, str(len(layers)), units.number(time_ms), units.percent(time_ms / total_ms),
                units.percent(mult_adds / total_mult_adds), units.number(None if rate is None else rate / 1e9),
                units.percent(roof_share),
            )
        )  # fmt: skip
    for kind, time_ms in (("moves", times.moves_ms), ("other", times.other_ms)):
        rows.append((kind, "", units.number(time_ms), units.percent(time_ms / total_ms), "", "", ""))
    columns = ("Layer type", "Layers", "Time, ms", "Time", "Mult-Adds", "G/s", "Roof")
    return Table(f"Layers of {name(result)}", columns, tuple(rows))


def _figure(id: str, result: Result, times: LayerTimes, ceilings: Ceilings, name: Name) -> Figure:
    traces: list[dict[str, Any]] = []
    for kind, color in zip(_TYPES, COLORS, strict=False):
        layers = [layer for layer in times.layers if layer.type == kind and layer.median_ms > 0]
        if layers:
            traces.append(
                {
                    "type": "scatter", "mode": "markers", "name": kind, "marker": {"color": color, "size": 8},
                    "x": [layer.mult_adds / layer.moved_bytes for layer in layers],
                    "y": [layer.mult_adds / (layer.median_ms / 1e3) / 1e9 for layer in layers],
                    "text": [f"{layer.name}, {units.milliseconds(layer.median_ms)}" for layer in layers],
                    "hovertemplate": "%{text}<br>%{x:.3g} Mult-Adds per byte, %{y:.3g} G Mult-Adds/s<extra></extra>",
                }
            )  # fmt: skip
    low, high = 0.1, 1000.0
    for precision, peak in ceilings.mult_adds_per_s.items():
        traces.append(_line(f"{precision} arithmetic", [low, high], [peak / 1e9] * 2, "dash"))
    for title, bandwidth in (("memory", ceilings.memory_bytes_per_s), ("cache", ceilings.cache_bytes_per_s)):
        ends = [low, min(high, max(ceilings.mult_adds_per_s.values()) / bandwidth)]
        traces.append(_line(f"{title} bandwidth", ends, [x * bandwidth / 1e9 for x in ends], "dot"))
    with_roof = [layer for layer in times.layers if layer.precision in ceilings.mult_adds_per_s]
    memory_bound = sum(bottleneck(layer, ceilings) == "memory" for layer in with_roof)
    alt = (
        f"Mult-Adds per second against Mult-Adds per byte for the {len(times.layers)} layers of {name(result)}, with"
        f" the machine's roofs. Of the {len(with_roof)} layers whose precision has a roof, {memory_bound} are"
        f" memory-bound and {len(with_roof) - memory_bound} are bound by arithmetic."
    )
    layout = {
        "xaxis": {"title": {"text": "Mult-Adds per byte"}, "type": "log"},
        "yaxis": {"title": {"text": "billion Mult-Adds per second"}, "type": "log"},
    }
    return Figure(id, f"Roofline of {name(result)}", alt, tuple(traces), layout, 460)


def _line(name: str, x: list[float], y: list[float], dash: str) -> dict[str, Any]:
    return {
        "type": "scatter", "mode": "lines", "name": name, "x": x, "y": y,
        "line": {"dash": dash, "width": 1.5, "color": "#888888"}, "hovertemplate": f"{name}: %{{y:.3g}}<extra></extra>",
    }  # fmt: skip
