"""What TensorRT's engine inspector says it made of the model: layers, where each comes from, in which precision."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import msgspec

from mbbench.backend import Executed, NodeTime

_ORIGIN = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
# In the order to look for them: a format may say "row major" or "channel % 8" as well.
_TYPES = (("bf16", r"bf16|bfloat16"), ("fp16", r"fp16|float16|half"), ("int8", r"int8"), ("fp32", r"fp32|float"))
_TYPE_KEYS = ("Format/Datatype", "Datatype", "DataType")  # TensorRT 10's, and the spellings of 11


def executed(information: str) -> dict[str, Executed]:
    """The engine's layers by their own names, in order, from the inspector's JSON."""
    layers = msgspec.json.decode(information).get("Layers", [])
    return dict(_named(layer) if isinstance(layer, str) else _described(layer) for layer in layers)


def timed(readings: Mapping[str, Sequence[float]], layers: Mapping[str, Executed]) -> tuple[NodeTime, ...]:
    """The median of each layer's readings (ms) but for the first; nothing if none is a layer that the engine has.

    A layer that takes no time is one that nothing is executed for.
    """
    if not readings.keys() & layers.keys():
        return ()
    unknown = Executed((), "unknown", "unknown")
    return tuple(
        NodeTime(node.names, node.type, node.precision, median_ms)
        for name, times in readings.items()
        if len(times) > 1 and (median_ms := median(times[1:])) > 0
        for node in (layers.get(name, unknown),)
    )


def _named(name: str) -> tuple[str, Executed]:
    """All that an engine tells that was built without details."""
    return name, Executed(tuple(name.split(" + ")), "unknown", "unknown")


def _described(layer: Mapping[str, Any]) -> tuple[str, Executed]:
    """Fused ONNX nodes stand in `Metadata`; before TensorRT 8.6 only in the name."""
    name = layer["Name"]
    origins = _ORIGIN.findall(layer.get("Metadata", "")) or name.split(" + ")
    return name, Executed(tuple(origins), layer.get("LayerType", "unknown"), _precision(layer))


def _precision(layer: Mapping[str, Any]) -> str:
    """The weights' type, or where it is not told that of the first input: what the kernel multiplies."""
    inputs = layer.get("Inputs", [])
    given = [inputs[0].get(key) for key in _TYPE_KEYS] if inputs else []
    for text in (layer.get("Weights", {}).get("Type"), *given):
        for precision, pattern in _TYPES:
            if text is not None and re.search(pattern, text, re.IGNORECASE):
                return precision
    return "unknown"
