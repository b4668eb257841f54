"""The convolutions and matrix products of a module, of Inductor's graph, and of the profiler's events."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from mbbench.backend import Executed, NodeTime

if TYPE_CHECKING:
    import torch

TimeUs = Callable[[Any], float]

CALL = "mbbench call"  # labels a call in the profiler's events
_WEIGHTED = re.compile(
    r"(q(conv|conv2d|linear)_pointwise_?|_?convolution(_pointwise_?)?|conv2d|_?(mkl_)?linear(_pointwise_?)?"
    r"|addmm|mm|bmm|matmul)"
)


def of_module(module: torch.fx.GraphModule) -> Iterator[tuple[str, str]]:
    """Yield the name and the operator of each convolution and matrix product, in the order in which they run."""
    from mbbench.graphs.fx import layer_calls

    for name, node in layer_calls(module):
        if node.op == "call_module":
            yield name, type(module.get_submodule(str(node.target))).__name__
        else:
            yield name, getattr(node.target, "__name__", str(node.target))


def of_graph(graph: Any) -> Iterator[tuple[str, str]]:
    """Yield the operator and precision of each convolution and matrix product in Inductor's graph.

    The names of oneDNN's quantized operators start with q.
    """
    for node in graph.nodes:
        operator = str(node.target).split(".")[1:2]
        if node.op != "call_function" or not operator or not _WEIGHTED.fullmatch(operator[0]):
            continue
        name = operator[0]
        yield name, "int8" if name.startswith("q") else precision_name(node.meta["val"].dtype)


def precision_name(dtype: torch.dtype) -> str:
    """Return mbbench's name of a type, or PyTorch's if mbbench has none."""
    name = str(dtype).removeprefix("torch.")
    return {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}.get(name, name)


def cpu_us(event: Any) -> float:
    """Return the time that an event of the profiler took on the CPU, in microseconds."""
    elapsed: float = event.time_range.elapsed_us()
    return elapsed


def gpu_us(event: Any) -> float:
    """Return the time of the kernels that an event and its children started, in microseconds."""
    total: float = event.device_time_total
    return total


def node_times(calls: Sequence[Any], executed: Sequence[Executed], time_us: TimeUs) -> tuple[NodeTime, ...]:
    """Return the median time of each layer, then of each remaining operator, from the profiler's events of `calls`.

    The convolutions and matrix products of a call are matched to `executed` by order. Return an empty tuple if their
    numbers differ, or if a layer has no time, as on a GPU whose kernels the profiler does not see.
    """
    layers: list[list[float]] = []
    others: list[dict[str, float]] = []
    for call in calls:
        layers.append([])
        others.append({})
        for event in _by_start(call.cpu_children):
            weighted_us = [time_us(weighted) for weighted in _outermost_weighted(event)]
            rest_us = time_us(event) - sum(weighted_us)
            layers[-1] += weighted_us
            others[-1][event.name] = others[-1].get(event.name, 0) + rest_us
    if any(len(times) != len(executed) or min(times, default=0) <= 0 for times in layers):
        return ()
    medians = {name: median(times.get(name, 0) for times in others) for name in others[0]}
    return (
        *(
            NodeTime(node.names, node.type, node.precision, median(times) / 1e3)
            for node, times in zip(executed, zip(*layers, strict=True), strict=True)
        ),
        *(NodeTime((), name, "unknown", time / 1e3) for name, time in medians.items() if time > 0),
    )


def _outermost_weighted(event: Any) -> Iterator[Any]:
    """Yield the convolutions and matrix products within `event`, without those nested in another."""
    if _WEIGHTED.fullmatch(event.name.rpartition("::")[2]):
        yield event
        return
    for child in _by_start(event.cpu_children):
        yield from _outermost_weighted(child)


def _by_start(events: Sequence[Any]) -> list[Any]:
    return sorted(events, key=lambda event: event.time_range.start)
