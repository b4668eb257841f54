"""A foreign ONNX graph in the form that `graphs.onnx.to_onnx` writes, on which all later stages rely.

The input is `images` (N, 3, H, W) float32 with N symbolic, the output `logits` (N, classes). Batch norm is folded where
it follows a convolution, constants are initializers, padding is explicit. A node has the name of its output, an
activation that of its layer and `/act`. The parameters of a convolution or fully connected layer are called
`NODE.weight` and `NODE.bias`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mbbench.errors import UsageError, first_line
from mbbench.graphs import affine, batch, naming
from mbbench.graphs.read import Signature

if TYPE_CHECKING:
    import onnx

_OPSET = 18
_ANY_BATCH = 61  # stands for N in a file for any batch: a prime that is hardly a size of anything else
_TO_NHWC, _TO_NCHW = [0, 2, 3, 1], [0, 3, 1, 2]
_NOT_SLIMMED = ["subexpression_elimination", "weight_tying"]  # layers with equal weights stay layers of their own
_VIEWS, _SOFTMAX = ("Identity", "Reshape", "Flatten", "Squeeze"), ("Softmax", "LogSoftmax")
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
    size = signature.batch or _ANY_BATCH
    _fix_signature(graph.graph, signature, (size, 3, height, width))
    graph = _slim(graph)
    if next(entry.version for entry in graph.opset_import if entry.domain in ("", "ai.onnx")) < _OPSET:
        try:
            graph = onnx.version_converter.convert_version(graph, _OPSET)
        except Exception as error:  # the converter raises many types
            raise UsageError(
                f"the graph cannot be converted to opset {_OPSET}: {first_line(error)}",
                "export it again with a newer opset",
            ) from error
        graph = _slim(graph)
    affine.fold(graph.graph)
    _finish_output(graph.graph, signature, size)
    graph = onnx.shape_inference.infer_shapes(graph, data_prop=True)
    shapes = {
        value.name: [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        for value in (*graph.graph.value_info, *graph.graph.input, *graph.graph.output)
    } | {tensor.name: list(tensor.dims) for tensor in graph.graph.initializer}
    for node in graph.graph.node:
        if node.op_type in _WINDOWED:
            _make_padding_explicit(node, shapes)
    batch.free(graph.graph, shapes, size)
    naming.name(graph.graph)
    for value in (*graph.graph.input, *graph.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    del graph.graph.value_info[:], graph.metadata_props[:]
    graph.graph.doc_string = graph.doc_string = ""
    graph.graph.name = "main"
    onnx.checker.check_model(graph)
    return graph


def _slim(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with constants computed, batch norm folded and dead nodes gone.

    A call of onnxslim follows computed shapes through ten reshapes; a transformer has more in a row.
    """
    import onnxslim

    while True:
        nodes = len(model.graph.node)
        model = onnxslim.slim(model, skip_optimizations=_NOT_SLIMMED)
        if len(model.graph.node) == nodes or all(node.op_type != "Shape" for node in model.graph.node):
            return model


def _fix_signature(graph: onnx.GraphProto, signature: Signature, shape: tuple[int, int, int, int]) -> None:
    """Rename the input to `images`, of `shape`, and drop all outputs but the logits."""
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
    graph.input.append(helper.make_tensor_value_info("images", types.FLOAT, list(shape)))
    kept = [value for value in graph.output if value.name == signature.output]
    del graph.output[:]
    scores = [shape[0], signature.classes, *((1, 1) if signature.is_spatial else ())]
    graph.output.append(helper.make_tensor_value_info(kept[0].name, types.FLOAT, scores))
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


def _finish_output(graph: onnx.GraphProto, signature: Signature, batch_size: int) -> None:
    """Drop a final softmax with the reshapes around it, and make the output `logits` (N, C)."""
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
    shape = [batch_size, signature.classes]
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
