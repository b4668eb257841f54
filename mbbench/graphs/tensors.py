"""A Q/DQ graph's integers and scales as plain tensors, for runtimes that do not read ONNX."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from numpy.typing import NDArray

_WEIGHTED = ("Conv", "Gemm")


def parameters(model: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    """Return the tensors of every weighted layer L of a Q/DQ graph.

    These are `L.weight` (int8), `L.weight_scale` (O,), `L.bias` (O,), `L.input_scale` (1,) and `L.input_zero_point`
    (1,). A layer that stays in fp32 has only `L.weight` and `L.bias`, in float32.
    """
    import numpy as np
    import onnx

    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    producers = {output: node for node in model.graph.node for output in node.output}
    tensors: dict[str, NDArray[Any]] = {}
    for node in model.graph.node:
        if node.op_type not in _WEIGHTED:
            continue
        activation, weight = (producers.get(name) for name in node.input[:2])
        if weight is None or weight.op_type != "DequantizeLinear":
            tensors[f"{node.name}.weight"] = values[node.input[1]]
            tensors[f"{node.name}.bias"] = _bias(node, values, producers)
            continue
        assert activation is not None
        tensors[f"{node.name}.weight"] = values[weight.input[0]]
        tensors[f"{node.name}.weight_scale"] = np.atleast_1d(values[weight.input[1]])
        tensors[f"{node.name}.bias"] = _bias(node, values, producers)
        tensors[f"{node.name}.input_scale"] = np.atleast_1d(values[activation.input[1]])
        tensors[f"{node.name}.input_zero_point"] = np.atleast_1d(values[activation.input[2]])
    return tensors


def _bias(node: Any, values: dict[str, NDArray[Any]], producers: dict[str, Any]) -> NDArray[np.float32]:
    """Return the layer's bias (O,), dequantized; zeros if it has none, since the exporter drops a bias of zeros."""
    import numpy as np

    if len(node.input) < 3:
        weight = producers.get(node.input[1])
        return np.zeros(len(values[node.input[1] if weight is None else weight.input[0]]), np.float32)
    name = node.input[2]
    if name in values:
        return values[name]
    quantized, scale, *_ = producers[name].input
    return np.asarray(values[quantized] * values[scale], np.float32)
