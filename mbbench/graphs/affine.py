"""The constants by which a graph scales and shifts channels after a batch norm, taken into the batch norm.

Caffe's networks write one as a normalization and a `Scale` layer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import onnx


def fold(graph: onnx.GraphProto) -> None:
    """Fold products and sums with a constant of each channel, (C, 1, 1), into the batch norm that they alone read."""
    import onnx

    values = {tensor.name: tensor for tensor in graph.initializer}
    outputs = {value.name for value in graph.output}
    norms = [node for node in graph.node if node.op_type == "BatchNormalization"]
    for norm in [node for node in norms if {*node.input[1:3]} <= values.keys()]:  # others are computed
        scale, shift = (onnx.numpy_helper.to_array(values[name]) for name in norm.input[1:3])
        while norm.output[0] not in outputs:
            users = [node for node in graph.node if norm.output[0] in node.input]
            constant = None if len(users) != 1 else _channel_constant(users[0], norm.output[0], values, len(scale))
            if constant is None:
                break
            if users[0].op_type == "Mul":
                scale, shift = scale * constant, shift * constant
            else:
                shift = shift + constant
            graph.node.remove(users[0])
            norm.output[0] = users[0].output[0]
        for index, value in ((1, scale), (2, shift)):
            name = f"{norm.output[0]}.{'scale' if index == 1 else 'shift'}"
            graph.initializer.append(onnx.numpy_helper.from_array(value, name))
            norm.input[index] = name


def _channel_constant(
    node: onnx.NodeProto, tensor: str, values: dict[str, onnx.TensorProto], channels: int
) -> np.ndarray | None:
    """Return the constant (C,) by which `node` scales or shifts the channels of `tensor`, or None."""
    import onnx

    others = [name for name in node.input if name != tensor]
    if node.op_type not in ("Mul", "Add") or len(others) != 1 or others[0] not in values:
        return None
    constant = onnx.numpy_helper.to_array(values[others[0]])
    return constant.reshape(-1) if constant.shape[-3:] == (channels, 1, 1) and constant.size == channels else None
