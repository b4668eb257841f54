"""Parsing of TensorRT's engine inspector: an engine's layers, their ONNX nodes and their precisions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import msgspec

from mbbench.backend import Executed, NodeTime

_ORIGIN = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
# Searched in this order: "bfloat16" contains "float16", which contains "float". Formats contain other words too.
_TYPES = (("bf16", r"bf16|bfloat16"), ("fp16", r"fp16|float16|half"), ("int8", r"int8"), ("fp32", r"fp32|float"))
_TYPE_KEYS = ("Format/Datatype", "Datatype", "DataType")  # of TensorRT 10, and two spellings of TensorRT 11


def executed(information: str) -> dict[str, Executed]:
    """Return the engine's layers by name, in order, from the inspector's JSON."""
    layers = msgspec.json.decode(information).get("Layers", [])
    return dict(_named(layer) if isinstance(layer, str) else _described(layer) for layer in layers)


def timed(readings: Mapping[str, Sequence[float]], layers: Mapping[str, Executed]) -> tuple[NodeTime, ...]:
    """Return the median of each layer's readings (ms) without the first; empty if none is a layer of the engine.

    Layers with a median of 0 are left out: nothing is executed for them.
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
    """Return a layer of an engine that was built without details: it has only a name."""
    return name, Executed(tuple(name.split(" + ")), "unknown", "unknown")


def _described(layer: Mapping[str, Any]) -> tuple[str, Executed]:
    """Return a layer; the ONNX nodes fused in it are in `Metadata` or, before TensorRT 8.6, in its name."""
    name = layer["Name"]
    origins = _ORIGIN.findall(layer.get("Metadata", "")) or name.split(" + ")
    return name, Executed(tuple(origins), layer.get("LayerType", "unknown"), _precision(layer))


def _precision(layer: Mapping[str, Any]) -> str:
    """Return the type that the kernel multiplies: that of the weights or, if it is not reported, of the first input."""
    inputs = layer.get("Inputs", [])
    input_types = [inputs[0].get(key) for key in _TYPE_KEYS] if inputs else []
    for text in (layer.get("Weights", {}).get("Type"), *input_types):
        for precision, pattern in _TYPES:
            if text is not None and re.search(pattern, text, re.IGNORECASE):
                return precision
    return "unknown"
