"""A foreign ONNX graph in the form that `graphs.onnx.to_onnx` writes, on which all later stages rely.

The input is `images` (N, 3, H, W) float32 with N symbolic, the output `logits` (N, classes). Batch norm is folded where
it follows a convolution, constants are initializers, padding is explicit. A node has the name of its output, an
activation that of its layer and `/act`. The parameters of a convolution or fully connected layer are called
`NODE.weight` and `NODE.bias`.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from mbbench.errors import UsageError
from mbbench.graphs.read import Signature

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from numpy.typing import NDArray

_OPSET = 18
_TO_NHWC, _TO_NCHW = [0, 2, 3, 1], [0, 3, 1, 2]
_NOT_SLIMMED = ["subexpression_elimination", "weight_tying"]  # layers with equal weights stay layers of their own
_VIEWS, _SOFTMAX = ("Identity", "Reshape", "Flatten", "Squeeze"), ("Softmax", "LogSoftmax")
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
_WINDOWED = ("Conv", "MaxPool", "AveragePool")


def normalize(model: onnx.ModelProto, signature: Signature, height: int, width: int) -> onnx.ModelProto:
    """Return the model's graph in the form above, for images of `height` x `width` pixels.

    A final softmax is dropped: logits are compared, and it changes no answer. A uint8 input becomes floats from 0 to
    255. Raises `UsageError` if the graph cannot be converted.
    """
    import onnx

    graph = onnx.ModelProto()
    graph.CopyFrom(model)
    graph.ir_version = max(graph.ir_version, 8)  # from 4 on, constants are not inputs
    _fix_signature(graph.graph, signature, height, width)
    graph = _slim(graph)
    if next(entry.version for entry in graph.opset_import if entry.domain in ("", "ai.onnx")) < _OPSET:
        try:
            graph = onnx.version_converter.convert_version(graph, _OPSET)
        except Exception as error:  # the converter raises many types
            cause = str(error).splitlines()[0]
            raise UsageError(
                f"the graph cannot be converted to opset {_OPSET}: {cause}", "export it again with a newer opset"
            ) from error
        graph = _slim(graph)
    _finish_output(graph.graph, signature)
    graph = onnx.shape_inference.infer_shapes(graph, data_prop=True)
    shapes = {
        value.name: [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        for value in (*graph.graph.value_info, *graph.graph.input, *graph.graph.output)
    } | {tensor.name: list(tensor.dims) for tensor in graph.graph.initializer}
    for node in graph.graph.node:
        if node.op_type in _WINDOWED:
            _make_padding_explicit(node, shapes)
    _free_batch(graph.graph, shapes)
    _name(graph.graph)
    for value in (*graph.graph.input, *graph.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    del graph.graph.value_info[:], graph.metadata_props[:]
    graph.graph.doc_string = graph.doc_string = ""
    graph.graph.name = "main"
    onnx.checker.check_model(graph)
    return graph


def _slim(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with constants computed, batch norm folded and dead nodes gone."""
    import onnxslim

    slimmed: onnx.ModelProto = onnxslim.slim(model, skip_optimizations=_NOT_SLIMMED)
    return slimmed


def _fix_signature(graph: onnx.GraphProto, signature: Signature, height: int, width: int) -> None:
    """Rename the input to `images`, with a batch of one image in NCHW, and drop all outputs but the logits."""
    import onnx

    helper, types = onnx.helper, onnx.TensorProto
    tensor, before = "images", []
    if signature.layout == "NHWC":
        before.append(helper.make_node("Transpose", [tensor], ["images_nhwc"], "images_nhwc", perm=_TO_NHWC))
        tensor = "images_nhwc"
    if signature.is_integer:
        before.append(helper.make_node("Cast", [tensor], ["images_uint8"], "images_uint8", to=types.UINT8))
        tensor = "images_uint8"
    for node in graph.node:
        node.input[:] = [tensor if name == signature.input else name for name in node.input]
    nodes = [*before, *graph.node]
    del graph.node[:], graph.input[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.input.append(helper.make_tensor_value_info("images", types.FLOAT, [1, 3, height, width]))
    kept = [value for value in graph.output if value.name == signature.output]
    del graph.output[:]
    shape = [1, signature.classes, *((1, 1) if signature.is_spatial else ())]
    graph.output.append(helper.make_tensor_value_info(kept[0].name, types.FLOAT, shape))
    _cancel_conversions(graph)


def _cancel_conversions(graph: onnx.GraphProto) -> None:
    """Drop pairs at the input that undo each other: a cast of uint8 to floats, a transposition back to NCHW."""
    import onnx

    for node in list(graph.node):
        attributes = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
        producer = next((other for other in graph.node if node.input and node.input[0] in other.output), None)
        if producer is None or not producer.name.startswith("images_") or producer.op_type != node.op_type:
            continue
        back = attributes.get("perm") == _TO_NCHW or attributes.get("to") == onnx.TensorProto.FLOAT
        if back:
            for user in graph.node:
                user.input[:] = [producer.input[0] if name == node.output[0] else name for name in user.input]
            graph.node.remove(node)


def _finish_output(graph: onnx.GraphProto, signature: Signature) -> None:
    """Drop a final softmax with the reshapes around it, and make the output `logits` (1, C)."""
    import onnx

    producers = {output: node for node in graph.node for output in node.output}
    tensor, softmax = graph.output[0].name, False
    tail = []
    while (node := producers.get(tensor)) is not None and node.op_type in (*_VIEWS, *_SOFTMAX):
        tail.append(node)
        softmax = softmax or node.op_type in _SOFTMAX
        tensor = node.input[0]
    if softmax or signature.is_spatial:
        for node in tail:
            graph.node.remove(node)
        graph.node.append(onnx.helper.make_node("Flatten", [tensor], ["logits"], "logits", axis=1))
    else:
        tensor = graph.output[0].name
        for node in graph.node:
            node.input[:] = ["logits" if name == tensor else name for name in node.input]
            node.output[:] = ["logits" if name == tensor else name for name in node.output]
    del graph.output[:]
    shape = [1, signature.classes]
    graph.output.append(onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, shape))


def _make_padding_explicit(node: onnx.NodeProto, shapes: dict[str, list[int]]) -> None:
    """Replace `auto_pad` by the pads it means for the inferred shapes."""
    import onnx

    attributes = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
    mode = attributes.get("auto_pad", b"NOTSET").decode()
    if mode == "NOTSET":
        return
    kept = [entry for entry in node.attribute if entry.name not in ("auto_pad", "pads")]
    del node.attribute[:]
    node.attribute.extend(kept)
    if mode == "VALID":
        return
    before, after = [], []
    for axis, kernel in enumerate(attributes.get("kernel_shape") or shapes[node.input[1]][2:]):
        stride = attributes.get("strides", [1, 1])[axis]
        reach = (kernel - 1) * attributes.get("dilations", [1, 1])[axis] + 1
        size, out = shapes[node.input[0]][2 + axis], shapes[node.output[0]][2 + axis]
        total = max((out - 1) * stride + reach - size, 0)
        small, large = total // 2, total - total // 2
        before.append(small if mode == "SAME_UPPER" else large)
        after.append(large if mode == "SAME_UPPER" else small)
    node.attribute.append(onnx.helper.make_attribute("pads", [*before, *after]))


def _free_batch(graph: onnx.GraphProto, shapes: dict[str, list[int]]) -> None:
    """Let every reshape keep whatever batch size arrives, instead of the one that it was exported with."""
    import onnx

    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Flatten" or node.op_type != "Reshape" or node.input[1] not in constants:
            continue
        target = shapes.get(node.output[0])
        source = shapes.get(node.input[0])
        if not target or not source or target[0] != 1 or source[0] != 1 or not all(target[1:]):
            continue  # the batch is not the first dimension
        name = f"{node.output[0]}.shape"
        values = _int64([-1, *target[1:]])
        graph.initializer.append(onnx.numpy_helper.from_array(values, name))
        node.input[1] = name


def _int64(values: list[int]) -> NDArray[np.int64]:
    import numpy as np

    return np.array(values, np.int64)


def _name(graph: onnx.GraphProto) -> None:
    """Name nodes, tensors and parameters after the nodes of the file; see the module's docstring."""
    import onnx

    arrays = {tensor.name: tensor for tensor in graph.initializer}
    outputs = {value.name for value in graph.output}
    taken: set[str] = set()
    tensors: dict[str, str] = {}
    layers = _fused_layers(graph)
    named: dict[str, str] = {}  # a layer's output -> its name
    followers: Counter[str] = Counter()
    for node in graph.node:
        if (layer := layers.get(node.output[0])) is None or layer == node.output[0]:
            node.name = named[node.output[0]] = _unique(node, taken)
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
        for position, name in enumerate(node.input):
            if name not in arrays:
                continue
            if node.op_type in ("Conv", "Gemm"):
                target = f"{node.name}.{('', 'weight', 'bias')[position]}"
            else:
                target = f"{node.name}.input{position}"
            kept[target] = onnx.TensorProto()
            kept[target].CopyFrom(arrays[name])
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


def _unique(node: onnx.NodeProto, taken: set[str]) -> str:
    """Return a name that no other node has, and that is no other's beginning followed by a separator.

    Layers are found by the beginnings of names, since runtimes add to them.
    """
    base = re.sub(r"[^A-Za-z0-9.]+", "-", node.name.strip("/") or node.op_type).strip("-.") or node.op_type
    base = ".".join(part for part in base.split(".") if part)
    name, count = base, 1
    while any(name == other or name.startswith(f"{other}.") or other.startswith(f"{name}.") for other in taken):
        count += 1
        name = f"{base}-{count}"
    taken.add(name)
    return name


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
