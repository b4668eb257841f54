"""Theoretical cost of an ONNX graph, by shape inference; no PyTorch, and no weights are read.

Mult-Adds, weights and parameters mean what they mean in `models.cost`. Besides convolutions and fully connected layers,
matrix products count: with constant weights as fully connected layers, of two computed matrices as `MatMul`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mbbench.models.cost import Cost, Layer

if TYPE_CHECKING:
    import onnx

_FP32_BYTES = 4
_KEPT_ELEMENTS = 1024  # of a constant that shape inference may need
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# These write to the memory that they read, if nothing else reads it: the least that a runtime needs.
_VIEWS = ("Reshape", "Flatten", "Identity", "Dropout", "Squeeze", "Unsqueeze", "Transpose", "Cast")
_IN_PLACE = ("Relu", "Clip", "BatchNormalization", "LeakyRelu", "PRelu", "HardSwish", "HardSigmoid", "Sigmoid")
_LEARNED = {"BatchNormalization": (1, 2), "LayerNormalization": (1, 2), "PRelu": (1,), "Add": (0, 1), "Mul": (0, 1)}


def count_graph(model: onnx.ModelProto) -> Cost:
    """Return the cost of the graph for one image. Raises `ValueError` if a shape that it needs is unknown."""
    shapes = _shapes(model)
    constants = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer} | _generated(model, shapes)
    followers = {node.input[0]: node for node in model.graph.node if node.op_type == "BatchNormalization"}
    layers, norms = [], set()
    for node in model.graph.node:
        if node.op_type not in _WEIGHTED:
            continue
        norm = followers.get(node.output[0])
        layer = _layer(node, shapes, constants, norm)
        if layer is not None:
            layers.append(layer)
            norms |= {norm.output[0]} if norm is not None and node.op_type == "Conv" else set()
    others = {
        name: math.prod(constants[name])
        for node in model.graph.node
        if node.output[0] not in norms
        for position in _LEARNED.get(node.op_type, ())
        if position < len(node.input) and (name := node.input[position]) in constants
    }
    learned = sum(size for size in others.values() if size > 1)
    return Cost(tuple(layers), _activation_peak(model, shapes, constants), learned)


def _layer(
    node: onnx.NodeProto,
    shapes: Mapping[str, tuple[int, ...]],
    constants: Mapping[str, tuple[int, ...]],
    norm: onnx.NodeProto | None,
) -> Layer | None:
    """Return the cost of a convolution, fully connected layer or matrix product; None if both factors are constant."""
    import onnx

    attributes = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
    name, (image, weight) = node.name or node.output[0], node.input[:2]
    if image in constants and weight in constants:
        return None
    source, output = _known(shapes, image, name), _known(shapes, node.output[0], name)
    inputs, rest = math.prod(source[1:]), tuple(output[1:])
    if node.op_type == "MatMul" and weight not in constants:
        return Layer(name, "MatMul", rest, math.prod(output) * source[-1], 0, 0, inputs)
    kernel = constants.get(weight) or _known(shapes, weight, name)
    weights = math.prod(kernel)
    bias = math.prod(constants.get(node.input[2], (0,))) if len(node.input) > 2 and node.input[2] else 0
    if node.op_type in ("Gemm", "MatMul"):
        depth = source[-1] if node.op_type == "MatMul" else weights // output[-1]
        return Layer(name, "Fully connected", rest, math.prod(output) * depth, weights, weights + bias, inputs)
    group = attributes.get("group", 1)
    size = "x".join(map(str, kernel[2:]))
    if node.op_type == "ConvTranspose":
        mult_adds = math.prod(source[1:]) * kernel[1] * math.prod(kernel[2:])
        return Layer(name, f"ConvTranspose {size}", rest, mult_adds, weights, weights + bias, inputs)
    kind = f"Conv DW {size}" if group == source[1] > 1 else f"Conv {size}"
    scale = sum(math.prod(constants.get(entry, (0,))) for entry in norm.input[1:3]) if norm is not None else 0
    mult_adds = math.prod(rest) * math.prod(kernel[1:])
    return Layer(name, kind, rest, mult_adds, weights, weights + bias + scale, inputs)


def _known(shapes: Mapping[str, tuple[int, ...]], tensor: str, name: str) -> tuple[int, ...]:
    if tensor not in shapes or not all(shapes[tensor]):
        raise ValueError(f"the shape of {tensor} at {name} is unknown")
    return shapes[tensor]


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors for a batch of one image; 0 for an unknown dimension."""
    import onnx

    bare = onnx.ModelProto()
    bare.ir_version = max(model.ir_version, 8)
    bare.opset_import.extend(model.opset_import)
    graph, source = bare.graph, model.graph
    graph.name = source.name or "main"
    graph.node.extend(source.node)
    graph.output.extend(source.output)
    constants = {tensor.name for tensor in source.initializer}
    for tensor in source.initializer:
        if math.prod(tensor.dims) > _KEPT_ELEMENTS:  # only its shape matters
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        else:
            graph.initializer.append(tensor)
    for value in source.input:
        if value.name not in constants:
            graph.input.append(value)
            graph.input[-1].type.tensor_type.shape.dim[0].dim_value = 1
    for value in graph.output:
        if value.type.tensor_type.shape.dim:
            value.type.tensor_type.shape.dim[0].dim_value = 1
    inferred = onnx.shape_inference.infer_shapes(bare, data_prop=True).graph
    return {
        value.name: tuple(dimension.dim_value for dimension in value.type.tensor_type.shape.dim)
        for value in (*inferred.value_info, *inferred.input, *inferred.output)
    }


def _generated(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the constants that nodes make, those computed from other constants included."""
    constant = {tensor.name for tensor in model.graph.initializer}
    made: dict[str, tuple[int, ...]] = {}
    for node in model.graph.node:
        if node.op_type == "Constant" or (node.input and all(not name or name in constant for name in node.input)):
            constant |= set(node.output)
            made |= {name: shapes[name] for name in node.output if name in shapes}
    return made


def _activation_peak(
    model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]], constants: Mapping[str, tuple[int, ...]]
) -> int:
    """Return the largest number of bytes of activations that are alive at the same time, as `models.cost` counts it."""
    readers = Counter(name for node in model.graph.node for name in set(node.input))
    storage: dict[str, str] = {}  # tensor -> the tensor whose memory it uses
    uses: dict[str, list[int]] = {}
    for step, node in enumerate(node for node in model.graph.node if node.output[0] not in constants):
        read = [name for name in node.input if name and name not in constants]
        for name in read:
            uses.setdefault(storage.setdefault(name, name), []).append(step)
        for output in node.output:
            shares = node.op_type in _VIEWS or (node.op_type in _IN_PLACE and readers[node.input[0]] == 1)
            storage[output] = storage[read[0]] if shares and read else output
            uses.setdefault(storage[output], []).append(step)
    ends = sorted({step for steps in uses.values() for step in (min(steps), max(steps))})
    sizes = {name: math.prod(shapes.get(name, ())[1:]) * _FP32_BYTES for name in uses}
    return max(sum(sizes[name] for name, steps in uses.items() if min(steps) <= end <= max(steps)) for end in ends)
