"""Names of a normal form (`graphs.normalize`): of nodes, the tensors between them, and the layers' parameters."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mbbench.errors import UsageError

if TYPE_CHECKING:
    import onnx

_ACTIVATIONS = (
    "Relu",
    "Clip",
    "LeakyRelu",
    "PRelu",
    "Elu",
    "Gelu",
    "HardSwish",
    "HardSigmoid",
    "Mish",
    "Sigmoid",
    "Tanh",
)


def name(graph: onnx.GraphProto) -> None:
    """Name nodes, tensors and parameters after the nodes of the file. Raises `UsageError`."""
    import onnx

    arrays = {tensor.name: tensor for tensor in graph.initializer}
    outputs = {value.name for value in graph.output}
    tensors: dict[str, str] = {}
    layers = _fused_layers(graph)
    named: dict[str, str] = {}  # a layer's output -> its name
    followers: Counter[str] = Counter()
    for node, unique in zip(graph.node, _unique_names(graph.node), strict=True):
        if (layer := layers.get(node.output[0])) is None or layer == node.output[0]:
            node.name = named[node.output[0]] = unique
        else:
            followers[layer] += 1
            node.name = f"{named[layer]}/act" + (f"-{followers[layer]}" if followers[layer] > 1 else "")
        for index, output in enumerate(node.output):
            if output not in outputs:
                tensors[output] = node.name if index == 0 else f"{node.name}:{index}"
    kept: dict[str, Any] = {}
    for node in graph.node:
        node.input[:] = [tensors.get(name, name) for name in node.input]
        node.output[:] = [tensors.get(name, name) for name in node.output]
        if node.op_type == "Gemm":
            _make_linear(node, arrays)
        for position, tensor in enumerate(node.input):
            if tensor not in arrays:
                continue
            if node.op_type in ("Conv", "Gemm"):
                target = f"{node.name}.{('', 'weight', 'bias')[position]}"
            else:
                target = f"{node.name}.input{position}"
            kept[target] = onnx.TensorProto()
            kept[target].CopyFrom(arrays[tensor])
            kept[target].name = node.input[position] = target
    del graph.initializer[:]
    graph.initializer.extend(kept.values())


def _fused_layers(graph: onnx.GraphProto) -> dict[str, str]:
    """Return, for the output of each layer and of what runtimes fuse with it, the layer's output.

    Runtimes name a fused node after its last part; parts that are named after their layer lead back to it.
    """
    readers = Counter(name for node in graph.node for name in node.input)
    layers: dict[str, str] = {}
    for node in graph.node:
        owners = [layers[name] for name in node.input if name in layers]
        output = node.output[0]
        if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            layers[output] = output
        elif owners and _is_activation(node, owners, readers[node.input[0]]):
            layers[output] = owners[0]
        elif node.op_type == "Add":
            single = [layers[name] for name in node.input if name in layers and readers[name] == 1]
            order = list(layers.values())
            if single:
                layers[output] = max(single, key=order.index)
    return layers


def _is_activation(node: onnx.NodeProto, owners: list[str], readers: int) -> bool:
    """Return whether the node is an activation of what its input belongs to, or part of x * sigmoid(x)."""
    if node.op_type == "Mul":
        return len(owners) == 2 and owners[0] == owners[1]
    return node.op_type in _ACTIVATIONS and (readers == 1 or "Sigmoid" in node.op_type)


def _unique_names(nodes: Sequence[onnx.NodeProto]) -> list[str]:
    """Return a name for each node: no two are equal, and none is another's beginning followed by a dot.

    Layers are found by the beginnings of names, since runtimes add to them.
    """
    bases = [_base(node) for node in nodes]
    beginnings = {
        ".".join(parts[:count]) for parts in (base.split(".") for base in bases) for count in range(1, len(parts))
    }
    names: list[str] = []
    taken = {*bases, *beginnings}
    used: set[str] = set()
    for base in bases:
        name, count = base, 1
        while name in used or name in beginnings or (count > 1 and name in taken):
            count += 1
            name = f"{base}-{count}"
        used.add(name)
        names.append(name)
    return names


def _base(node: onnx.NodeProto) -> str:
    """Return the node's name, or its operator's, in letters, digits, dots and dashes."""
    base = re.sub(r"[^A-Za-z0-9.]+", "-", node.name).strip("-.") or node.op_type
    return ".".join(part for part in base.split(".") if part)


def _make_linear(node: onnx.NodeProto, arrays: dict[str, onnx.TensorProto]) -> None:
    """Give a Gemm with constant weights the weights (classes, features), and factors of 1."""
    import numpy as np
    import onnx

    attributes = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
    if node.input[1] not in arrays or attributes.get("transA", 0):
        raise UsageError(f"{node.name} multiplies two computed matrices", "export the network with constant weights")
    weight = onnx.numpy_helper.to_array(arrays[node.input[1]])
    weight = (weight if attributes.get("transB", 0) else weight.T) * np.float32(attributes.get("alpha", 1.0))
    arrays[f"{node.name}.w"] = onnx.numpy_helper.from_array(np.ascontiguousarray(weight))
    node.input[1] = f"{node.name}.w"
    if len(node.input) > 2 and node.input[2] in arrays:
        bias = onnx.numpy_helper.to_array(arrays[node.input[2]]) * np.float32(attributes.get("beta", 1.0))
        bias = np.broadcast_to(bias.reshape(-1), (len(weight),)).astype(weight.dtype)
        arrays[f"{node.name}.b"] = onnx.numpy_helper.from_array(np.ascontiguousarray(bias))
        node.input[2] = f"{node.name}.b"
    del node.attribute[:]
    node.attribute.append(onnx.helper.make_attribute("transB", 1))
