"""ONNX operators that cut, join, move and resize tensors, as calls of PyTorch, for `graphs.operators`."""

from __future__ import annotations

import builtins
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import onnx
    from torch import fx


class Writer(Protocol):
    """The part of `graphs.fx`'s writer that operators need."""

    def value(self, name: str) -> fx.Node:
        """Return the node that computes the tensor `name`."""

    def constant(self, name: str) -> Any:
        """Return the constant tensor `name` as a NumPy array, or None for "". Raises `ValueError` if it is computed."""

    def call(self, target: Callable[..., Any], *arguments: Any, **keywords: Any) -> fx.Node:
        """Return a new node that calls `target`."""


Attributes = Mapping[str, Any]
Operator = Callable[[Writer, "onnx.NodeProto", Attributes], Any]


def integers(
    writer: Writer, node: onnx.NodeProto, position: int, attributes: Attributes, name: str
) -> list[int] | None:
    """Return the integers that are the input at `position` or, in older operators, the attribute `name`."""
    if name in attributes:
        value = attributes[name]
        return list(value) if isinstance(value, Sequence) else [value]
    if position >= len(node.input) or not node.input[position]:
        return None
    return [int(value) for value in writer.constant(node.input[position]).reshape(-1)]


def concat(writer: Writer, node: onnx.NodeProto, attributes: Attributes) -> fx.Node:
    import torch

    return writer.call(torch.cat, [writer.value(name) for name in node.input], attributes["axis"])


def reshape(writer: Writer, node: onnx.NodeProto, _: Attributes) -> fx.Node:
    import torch

    images = writer.value(node.input[0])
    shape = [int(size) for size in writer.constant(node.input[1])]
    if shape[1:] == [-1]:
        return writer.call(torch.flatten, images, 1)
    if 0 in shape[1:]:
        raise ValueError(f"{node.name}: a reshape to {shape} is not supported")
    if shape[0] == 0:  # the batch dimension
        batch = writer.call(torch.Tensor.size, images, 0)
        return writer.call(torch.reshape, images, [batch, *shape[1:]])
    return writer.call(torch.reshape, images, shape)


def squeeze(writer: Writer, node: onnx.NodeProto, attributes: Attributes) -> fx.Node:
    import torch

    axes = integers(writer, node, 1, attributes, "axes")
    if axes is None:
        raise ValueError(f"{node.name}: a squeeze of all axes would drop the batch's")
    return writer.call(torch.squeeze, writer.value(node.input[0]), axes)


def unsqueeze(writer: Writer, node: onnx.NodeProto, attributes: Attributes) -> fx.Node:
    import torch

    result = writer.value(node.input[0])
    for axis in sorted(integers(writer, node, 1, attributes, "axes") or []):
        result = writer.call(torch.unsqueeze, result, axis)
    return result


def gather(writer: Writer, node: onnx.NodeProto, attributes: Attributes) -> fx.Node:
    import torch

    axis, indices = attributes.get("axis", 0), writer.constant(node.input[1])
    values = writer.value(node.input[0])
    if indices.ndim == 0:
        return writer.call(torch.select, values, axis, int(indices))
    flat = writer.call(torch.flatten, writer.value(node.input[1]))
    selected = writer.call(torch.index_select, values, axis, flat)
    return writer.call(torch.unflatten, selected, axis, list(indices.shape))


def split(writer: Writer, node: onnx.NodeProto, attributes: Attributes) -> tuple[fx.Node, ...]:
    import torch

    axis, sizes = attributes.get("axis", 0), integers(writer, node, 1, attributes, "split")
    values = writer.value(node.input[0])
    parts = (
        writer.call(torch.tensor_split, values, len(node.output), axis)
        if sizes is None
        else writer.call(torch.split, values, sizes, axis)
    )
    return tuple(writer.call(operator.getitem, parts, index) for index in range(len(node.output)))


def slice(writer: Writer, node: onnx.NodeProto, attributes: Attributes) -> fx.Node:
    starts, ends = (integers(writer, node, 1, attributes, "starts"), integers(writer, node, 2, attributes, "ends"))
    assert starts is not None and ends is not None
    axes = integers(writer, node, 3, attributes, "axes") or list(range(len(starts)))
    steps = integers(writer, node, 4, attributes, "steps") or [1] * len(starts)
    if min(axes) < 0 or min(steps) < 1:
        raise ValueError(f"{node.name}: a slice of axes {axes} in steps of {steps} is not supported")
    index = [builtins.slice(None)] * (max(axes) + 1)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        index[axis] = builtins.slice(start, end, step)
    return writer.call(operator.getitem, writer.value(node.input[0]), tuple(index))


def pad(writer: Writer, node: onnx.NodeProto, attributes: Attributes) -> fx.Node:
    from torch.nn import functional

    pads = integers(writer, node, 1, attributes, "pads") or []
    mode = attributes.get("mode", b"constant").decode()
    fill = float(writer.constant(node.input[2])) if len(node.input) > 2 and node.input[2] else 0.0
    if mode != "constant" or len(node.input) > 3:
        raise ValueError(f"{node.name}: padding of mode {mode}, or of named axes, is not supported")
    rank = len(pads) // 2
    flat = [size for axis in reversed(range(rank)) for size in (pads[axis], pads[axis + rank])]
    return writer.call(functional.pad, writer.value(node.input[0]), flat, "constant", fill)


def resize(writer: Writer, node: onnx.NodeProto, attributes: Attributes) -> fx.Node:
    """Write nearest and linear interpolation with the coordinates that PyTorch has."""
    from torch.nn import functional

    mode, coordinates, rounding = (
        attributes.get(name, default).decode()
        for name, default in (
            ("mode", b"nearest"),
            ("coordinate_transformation_mode", b"half_pixel"),
            ("nearest_mode", b"round_prefer_floor"),
        )
    )
    scales = writer.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    sizes = writer.constant(node.input[3]) if len(node.input) > 3 else None
    if mode == "nearest" and (coordinates, rounding) == ("asymmetric", "floor"):
        options: dict[str, Any] = {"mode": "nearest"}
    elif mode == "linear" and coordinates in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        options = {"mode": "bilinear", "align_corners": coordinates == "align_corners"}
    else:
        raise ValueError(f"{node.name}: resizing by {mode}, {coordinates}, {rounding} is not supported")
    if sizes is not None:
        options["size"] = [int(size) for size in sizes[-2:]]
    elif scales is not None:
        options["scale_factor"] = [float(scale) for scale in scales[2:]]
    return writer.call(functional.interpolate, writer.value(node.input[0]), **options)
