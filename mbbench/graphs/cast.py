"""An fp32 ONNX graph that computes in 16 bits: all tensors in bf16 or fp16, except input and output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import onnx


def cast(model: onnx.ModelProto, precision: Literal["bf16", "fp16"]) -> onnx.ModelProto:
    """Return a copy of the graph with its weights in `precision`, between a cast of `images` and one of `logits`."""
    import ml_dtypes
    import numpy as np
    import onnx

    helper, types = onnx.helper, onnx.TensorProto
    kind, dtype = {"bf16": (types.BFLOAT16, ml_dtypes.bfloat16), "fp16": (types.FLOAT16, np.float16)}[precision]
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    for tensor in graph.initializer:
        if tensor.data_type == types.FLOAT and not _must_be_fp32(graph, tensor.name):
            array = onnx.numpy_helper.to_array(tensor).astype(dtype)
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    for node in graph.node:
        if node.op_type == "Cast":
            for entry in node.attribute:
                entry.i = kind if entry.name == "to" and entry.i == types.FLOAT else entry.i
    images, logits = graph.input[0].name, graph.output[0].name
    narrow, wide = f"{images}.{precision}", f"{logits}.{precision}"
    for node in graph.node:
        node.input[:] = [narrow if name == images else name for name in node.input]
        node.input[:] = [wide if name == logits else name for name in node.input]
        node.output[:] = [wide if name == logits else name for name in node.output]
        if logits == node.name:
            node.name = wide
    graph.node.insert(0, helper.make_node("Cast", [images], [narrow], narrow, to=kind))
    graph.node.append(helper.make_node("Cast", [wide], [logits], logits, to=types.FLOAT))
    return result


def _must_be_fp32(graph: onnx.GraphProto, name: str) -> bool:
    """Return whether the tensor is the scales of a Resize, which has no other type for them."""
    return any(node.op_type == "Resize" and name in node.input[1:] for node in graph.node)
