"""A Q/DQ graph's integers and scales as plain tensors, for runtimes that read no ONNX."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from numpy.typing import NDArray

_WEIGHTED = ("Conv", "Gemm")


def parameters(model: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    """By layer: `L.weight` int8, `L.weight_scale` (O,), `L.bias`, `L.input_scale` and `L.input_zero_point`.

    A layer that was left in fp32 has `L.weight` and `L.bias` alone, in float32.
    """
    import numpy as np
    import onnx

    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    makers = {output: node for node in model.graph.node for output in node.output}
    found: dict[str, NDArray[Any]] = {}
    for node in model.graph.node:
        if node.op_type not in _WEIGHTED:
            continue
        given, weight = (makers.get(name) for name in node.input[:2])
        if weight is None or weight.op_type != "DequantizeLinear":
            found[f"{node.name}.weight"] = values[node.input[1]]
            found[f"{node.name}.bias"] = _bias(node, values, makers)
            continue
        assert given is not None
        found[f"{node.name}.weight"] = values[weight.input[0]]
        found[f"{node.name}.weight_scale"] = np.atleast_1d(values[weight.input[1]])
        found[f"{node.name}.bias"] = _bias(node, values, makers)
        found[f"{node.name}.input_scale"] = np.atleast_1d(values[given.input[1]])
        found[f"{node.name}.input_zero_point"] = np.atleast_1d(values[given.input[2]])
    return found


def _bias(node: Any, values: dict[str, NDArray[Any]], makers: dict[str, Any]) -> NDArray[np.float32]:
    """Of the layer's outputs (O,); the exporter drops one that is zero throughout."""
    import numpy as np

    if len(node.input) < 3:
        weight = makers.get(node.input[1])
        return np.zeros(len(values[node.input[1] if weight is None else weight.input[0]]), np.float32)
    name = node.input[2]
    if name in values:
        return values[name]
    quantized, scale, *_ = makers[name].input
    return np.asarray(values[quantized] * values[scale], np.float32)
