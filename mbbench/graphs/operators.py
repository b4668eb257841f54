"""ONNX operators of fp32 graphs as calls of PyTorch, for `graphs.fx`. Convolutions and Q/DQ pairs are written there."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import reduce
from typing import TYPE_CHECKING, Any

from mbbench.graphs import shapes
from mbbench.graphs.shapes import Attributes, Operator, Writer

if TYPE_CHECKING:
    import onnx
    from torch import fx


def operators() -> dict[str, Operator]:
    """Return the functions that write each operator; an operator with several outputs gets a tuple of nodes."""
    import torch
    from torch.nn import functional

    plain: dict[str, Callable[..., Any]] = {
        "Abs": torch.abs,
        "Add": operator.add,
        "Ceil": torch.ceil,
        "Div": operator.truediv,
        "Erf": torch.erf,
        "Exp": torch.exp,
        "Floor": torch.floor,
        "HardSwish": functional.hardswish,
        "MatMul": torch.matmul,
        "Max": torch.maximum,
        "Min": torch.minimum,
        "Mish": functional.mish,
        "Mul": operator.mul,
        "Neg": operator.neg,
        "Pow": operator.pow,
        "Reciprocal": torch.reciprocal,
        "Relu": functional.relu,
        "Sigmoid": torch.sigmoid,
        "Softplus": functional.softplus,
        "Sqrt": torch.sqrt,
        "Sub": operator.sub,
        "Tanh": torch.tanh,
    }
    return {name: _plain(function) for name, function in plain.items()} | {
        "AveragePool": _average_pool,
        "BatchNormalization": _batch_normalization,
        "Cast": _identity,
        "Clip": _clip,
        "Concat": shapes.concat,
        "Dropout": _identity,
        "Elu": lambda w, n, a: w.call(functional.elu, w.value(n.input[0]), a.get("alpha", 1.0)),
        "Flatten": lambda w, n, a: w.call(torch.flatten, w.value(n.input[0]), a.get("axis", 1)),
        "Gather": shapes.gather,
        "Gelu": lambda w, n, a: w.call(
            functional.gelu, w.value(n.input[0]), approximate=a.get("approximate", b"none").decode()
        ),
        "GlobalAveragePool": lambda w, n, a: w.call(torch.mean, w.value(n.input[0]), [2, 3], True),
        "GlobalMaxPool": lambda w, n, a: w.call(torch.amax, w.value(n.input[0]), [2, 3], True),
        "HardSigmoid": _hard_sigmoid,
        "Identity": _identity,
        "LRN": _local_response_normalization,
        "LayerNormalization": _layer_normalization,
        "LeakyRelu": lambda w, n, a: w.call(functional.leaky_relu, w.value(n.input[0]), a.get("alpha", 0.01)),
        "MaxPool": _max_pool,
        "PRelu": _parametric_relu,
        "Pad": shapes.pad,
        "ReduceMean": _reduce_mean,
        "Reshape": shapes.reshape,
        "Resize": shapes.resize,
        "Slice": shapes.slice,
        "Softmax": lambda w, n, a: w.call(torch.softmax, w.value(n.input[0]), a.get("axis", -1)),
        "Split": shapes.split,
        "Squeeze": shapes.squeeze,
        "Sum": lambda w, n, a: reduce(lambda x, y: w.call(operator.add, x, y), map(w.value, n.input)),
        "Transpose": lambda w, n, a: w.call(torch.permute, w.value(n.input[0]), list(a["perm"])),
        "Unsqueeze": shapes.unsqueeze,
    }


def _plain(function: Callable[..., Any]) -> Operator:
    """Return an operator that calls `function` with the node's inputs."""
    return lambda writer, node, _: writer.call(function, *map(writer.value, node.input))


def _identity(writer: Writer, node: onnx.NodeProto, _: Attributes) -> fx.Node:
    return writer.value(node.input[0])


def _clip(writer: Writer, node: onnx.NodeProto, attributes: Attributes) -> fx.Node:
    import torch
    from torch.nn import functional

    low, high = (None if not name else float(writer.constant(name)) for name in (*node.input[1:], "", "")[:2])
    if low is None or high is None:
        return writer.call(torch.clamp, writer.value(node.input[0]), low, high)
    return writer.call(functional.hardtanh, writer.value(node.input[0]), low, high)


def _hard_sigmoid(writer: Writer, node: onnx.NodeProto, attributes: Attributes) -> fx.Node:
    import torch

    scaled = writer.call(operator.mul, writer.value(node.input[0]), attributes.get("alpha", 0.2))
    return writer.call(torch.clamp, writer.call(operator.add, scaled, attributes.get("beta", 0.5)), 0.0, 1.0)


def _parametric_relu(writer: Writer, node: onnx.NodeProto, _: Attributes) -> fx.Node:
    import torch

    x, slope = map(writer.value, node.input)
    negative = writer.call(operator.mul, slope, writer.call(torch.clamp, x, None, 0.0))
    return writer.call(operator.add, writer.call(torch.clamp, x, 0.0), negative)


def _max_pool(writer: Writer, node: onnx.NodeProto, attributes: Attributes) -> fx.Node:
    from torch.nn import functional

    kernel = list(attributes["kernel_shape"])
    images, padding = _symmetric(writer, node, attributes, float("-inf"))
    return writer.call(
        functional.max_pool2d,
        images,
        kernel,
        list(attributes.get("strides", [1] * len(kernel))),
        padding,
        list(attributes.get("dilations", [1] * len(kernel))),
        ceil_mode=bool(attributes.get("ceil_mode", 0)),
    )


def _average_pool(writer: Writer, node: onnx.NodeProto, attributes: Attributes) -> fx.Node:
    import torch
    from torch.nn import functional

    kernel = list(attributes["kernel_shape"])
    images, padding = _symmetric(writer, node, attributes, 0.0)
    count_padding = bool(attributes.get("count_include_pad", 0))
    strides, ceil_mode = list(attributes.get("strides", [1] * len(kernel))), bool(attributes.get("ceil_mode", 0))
    if not count_padding and not any(padding) and any(attributes.get("pads", ())):
        # PyTorch has no padding on one side: divide the windows' sums by the number of pixels in them.
        pixels = writer.call(torch.ones_like, writer.value(node.input[0]))
        top, left, bottom, right = attributes["pads"]
        pixels = writer.call(functional.pad, pixels, [left, right, top, bottom])
        sums, counts = (
            writer.call(functional.avg_pool2d, x, kernel, strides, 0, ceil_mode, True, 1) for x in (images, pixels)
        )
        return writer.call(operator.truediv, sums, counts)
    return writer.call(functional.avg_pool2d, images, kernel, strides, padding, ceil_mode, count_padding)


def _symmetric(writer: Writer, node: onnx.NodeProto, attributes: Attributes, fill: float) -> tuple[fx.Node, list[int]]:
    """Return the node's input and its padding by axis; unequal padding becomes an operator filling with `fill`."""
    from torch.nn import functional

    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    images = writer.value(node.input[0])
    if (top, left) == (bottom, right):
        return images, [top, left]
    return writer.call(functional.pad, images, [left, right, top, bottom], "constant", fill), [0, 0]


def _reduce_mean(writer: Writer, node: onnx.NodeProto, attributes: Attributes) -> fx.Node:
    import torch

    axes = shapes.integers(writer, node, 1, attributes, "axes")
    return writer.call(torch.mean, writer.value(node.input[0]), axes, bool(attributes.get("keepdims", 1)))


def _batch_normalization(writer: Writer, node: onnx.NodeProto, attributes: Attributes) -> fx.Node:
    from torch.nn import functional

    x, scale, shift, mean, variance = map(writer.value, node.input)
    return writer.call(
        functional.batch_norm, x, mean, variance, scale, shift, False, 0.0, attributes.get("epsilon", 1e-5)
    )


def _layer_normalization(writer: Writer, node: onnx.NodeProto, attributes: Attributes) -> fx.Node:
    from torch.nn import functional

    shape = list(writer.constant(node.input[1]).shape)
    return writer.call(
        functional.layer_norm,
        writer.value(node.input[0]),
        shape,
        *map(writer.value, node.input[1:]),
        eps=attributes.get("epsilon", 1e-5),
    )


def _local_response_normalization(writer: Writer, node: onnx.NodeProto, attributes: Attributes) -> fx.Node:
    from torch.nn import functional

    return writer.call(
        functional.local_response_norm,
        writer.value(node.input[0]),
        attributes["size"],
        attributes.get("alpha", 1e-4),
        attributes.get("beta", 0.75),
        attributes.get("bias", 1.0),
    )
