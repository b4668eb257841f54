"""The program that makes a LiteRT file of an artifact: `python -m mbbench_litert_convert ONNX TFLITE`."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbbench.graphs.fx import to_module

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from numpy.typing import NDArray
    from torch import fx

_WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def convert(model: onnx.ModelProto) -> bytes:
    """The graph, fp32 or u8s8, as a LiteRT file for one image (1, 3, H, W), which resizing makes one for N.

    Raises `ValueError` if a layer's weights are not in it as they were.
    """
    import torch

    _, *shape = (dimension.dim_value for dimension in model.graph.input[0].type.tensor_type.shape.dim)
    network = to_module(model)
    _quantize_weights(network)
    _quantize_concatenations(network)
    import litert_torch  # takes seconds, and a graph that cannot be converted is refused by now

    converted = litert_torch.convert(network, (torch.zeros(1, *shape),), quant_config=_quantized_ahead())
    return _finish(converted.model_content(), _layers(model))


def _quantized_ahead() -> Any:
    """Has the converter turn Q/DQ pairs into integer kernels. The quantizer that it takes this from never runs."""
    from litert_torch.quantize.pt2e_quantizer import PT2EQuantizer, get_symmetric_quantization_config
    from litert_torch.quantize.quant_config import QuantConfig

    return QuantConfig(pt2e_quantizer=PT2EQuantizer().set_global(get_symmetric_quantization_config()))


def _quantize_weights(network: fx.GraphModule) -> None:
    """Integer weights become the floats they stand for, quantized in the graph: the converter takes no others.

    But for those of a product of matrices, as VGG16's pooling is: LiteRT has one scale for them, and they have several.
    """
    import torch

    operators = torch.ops.quantized_decomposed
    for node in network.graph.nodes:
        if node.target is operators.dequantize_per_channel.default:
            integers, scales, zeros, *limits = node.args
            tensors = (network.get_buffer(own.target) for own in (integers, scales, zeros))
            network.register_buffer(integers.target, operators.dequantize_per_channel(*tensors, *limits))
            if any(user.target is torch.matmul for user in node.users):
                node.replace_all_uses_with(integers)
                continue
            with network.graph.inserting_before(node):
                again = network.graph.call_function(
                    operators.quantize_per_channel.default, (integers, scales, zeros, *limits)
                )
            node.update_arg(0, again)
    network.graph.eliminate_dead_code()
    network.recompile()


def _quantize_concatenations(network: fx.GraphModule) -> None:
    """A pair behind every concatenation of quantized tensors that has none, with the widest of its inputs' scales.

    The converter would take the first's, and cut off what is larger in the others.
    """
    import torch

    operators = torch.ops.quantized_decomposed
    quantize, dequantize = operators.quantize_per_tensor.default, operators.dequantize_per_tensor.default
    for node in network.graph.nodes:
        if (
            node.target is torch.cat
            and all(given.target is dequantize for given in node.args[0])
            and not any(user.target is quantize for user in node.users)
        ):
            limits = max((given.args[1:] for given in node.args[0]), key=lambda limits: limits[0])
            with network.graph.inserting_after(node):
                integers = network.graph.call_function(quantize, (node, *limits))
            with network.graph.inserting_after(integers):
                floats = network.graph.call_function(dequantize, (integers, *limits))
            node.replace_all_uses_with(floats, delete_user_cb=lambda user, own=integers: user is not own)
    network.recompile()


@dataclass(frozen=True, slots=True)
class _Layer:
    name: str
    weights: NDArray[Any]  # in LiteRT's order: (out, H, W, in), depthwise (1, H, W, out), fully connected (out, in)
    scales: NDArray[np.float32] | None  # None: the weights are fp32


def _layers(model: onnx.ModelProto) -> list[_Layer]:
    """The layers of an ONNX graph that have weights."""
    import onnx

    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    makers = {output: node for node in model.graph.node for output in node.output}
    found = []
    for node in model.graph.node:
        if node.op_type not in ("Conv", "Gemm"):
            continue
        source, scales = node.input[1], None
        if source not in arrays:  # it comes out of DequantizeLinear
            source, scale, *_ = makers[source].input
            scales = arrays[scale].reshape(-1)
        weights = arrays[source]
        if node.op_type == "Conv":
            is_depthwise = any(attribute.name == "group" and attribute.i > 1 for attribute in node.attribute)
            weights = weights.transpose((1, 2, 3, 0) if is_depthwise else (0, 2, 3, 1))
        found.append(_Layer(node.name, weights, scales))
    return found


def _finish(content: bytes, layers: list[_Layer]) -> bytes:
    """The converter's file with what it cannot be told to write."""
    from ai_edge_litert.tools import flatbuffer_utils

    editor = _Editor(content)
    editor.name_layers(layers)
    editor.pad_in_convolutions()
    editor.take_any_batch()
    editor.take_floats()
    editor.drop_unused_constants()
    return bytes(flatbuffer_utils.convert_object_to_bytearray(editor.model))


class _Editor:
    """Edits a LiteRT file as a tree of objects, those of its schema."""

    def __init__(self, content: bytes) -> None:
        from ai_edge_litert import schema_py_generated
        from ai_edge_litert.tools import flatbuffer_utils

        self._schema = schema_py_generated
        self.model = flatbuffer_utils.read_model_from_bytearray(content)
        (self._graph,) = self.model.subgraphs

    def name_layers(self, layers: list[_Layer]) -> None:
        """Call what a layer makes by the layer's name; a layer is known by its weights.

        A fully connected layer whose outputs have no scale came out with float weights. In 8 bits they take a quarter,
        and XNNPACK multiplies integers, after rounding the inputs once more, and still gives floats.
        """
        known: dict[bytes, _Layer] = {}
        for layer in layers:
            known[layer.weights.tobytes()] = layer
            if layer.scales is not None and layer.weights.ndim == 2:
                known[(layer.weights * layer.scales[:, None]).tobytes()] = layer
        missing = {layer.name for layer in layers}
        for operator in self._operators(*_WEIGHTED):
            weights = self._graph.tensors[operator.inputs[1]]
            content = self._data(weights).tobytes()
            if content not in known:  # a product of matrices, as VGG16's pooling is
                continue
            layer = known[content]
            if layer.scales is not None and weights.type == self._schema.TensorType.FLOAT32:
                self._quantize(weights, layer.weights, layer.scales)
            self._graph.tensors[operator.outputs[0]].name = layer.name.encode()
            missing.discard(layer.name)
        if missing:
            raise ValueError(f"the weights of {', '.join(sorted(missing))} came out changed")

    def pad_in_convolutions(self) -> None:
        """Keras's padding at stride 2 is what LiteRT calls SAME, and needs no operator of its own.

        The converter finds that in fp32. In a quantized graph it pads channels first, between two transpositions, which
        takes half as long again at 0.5/128.
        """
        makers = {output: operator for operator in self._graph.operators for output in operator.outputs}
        for operator in self._operators("CONV_2D", "DEPTHWISE_CONV_2D"):
            turned = makers.get(operator.inputs[0])
            if turned is None or self._kind(turned) != "TRANSPOSE":
                continue
            padded = makers.get(turned.inputs[0])
            if padded is None or self._kind(padded) != "PAD" or not self._is_same(padded):
                continue
            source = padded.inputs[0]
            before = makers.get(source)
            self._graph.operators.remove(padded)
            if before is not None and self._kind(before) == "TRANSPOSE":
                self._graph.operators.remove(before)
                self._graph.operators.remove(turned)
                operator.inputs[0] = before.inputs[0]
            else:
                turned.inputs[0] = source
                batch, channels, height, width = self._graph.tensors[source].shape
                self._graph.tensors[turned.outputs[0]].shape = [batch, height, width, channels]
            operator.builtinOptions.padding = self._schema.Padding.SAME

    def _is_same(self, padded: Any) -> bool:
        """Whether it pads as a 3x3 convolution of stride 2 with SAME does, channels first."""
        amounts = self._data(self._graph.tensors[padded.inputs[1]]).view("int32").tolist()
        _, _, height, width = self._graph.tensors[padded.inputs[0]].shape
        return bool(amounts == [0, 0, 0, 0, 0, 1, 0, 1] and height % 2 == width % 2 == 0)

    def take_any_batch(self) -> None:
        """Reshape to whatever the first dimension comes to: it is the batch, or a multiple of it."""
        import numpy as np

        for operator in self._operators("RESHAPE"):
            shape = self._graph.tensors[operator.inputs[1]]
            sizes = self._data(shape).view("int32").tolist()
            self._fill(shape, np.array([-1, *sizes[1:]], np.int32))
            operator.builtinOptions = None  # says the same again

    def take_floats(self) -> None:
        """Quantize the images, if the first layer wants that; the converter leaves it to the caller."""
        schema, graph = self._schema, self._graph
        (given,) = graph.inputs
        wanted = graph.tensors[given]
        if wanted.type == schema.TensorType.FLOAT32:
            return
        images = schema.TensorT(name=b"images", shape=wanted.shape, type=schema.TensorType.FLOAT32)
        graph.tensors.append(images)
        graph.inputs = [len(graph.tensors) - 1]
        self.model.signatureDefs[0].inputs[0].tensorIndex = graph.inputs[0]
        code = schema.BuiltinOperator.QUANTIZE
        self.model.operatorCodes.append(schema.OperatorCodeT(builtinCode=code, deprecatedBuiltinCode=code, version=1))
        index = len(self.model.operatorCodes) - 1
        graph.operators.insert(0, schema.OperatorT(opcodeIndex=index, inputs=graph.inputs, outputs=[given]))

    def drop_unused_constants(self) -> None:
        used = {tensor.buffer for tensor in self._graph.tensors} | {own.buffer for own in self.model.metadata or ()}
        for index, buffer in enumerate(self.model.buffers):
            if index not in used:
                buffer.data = None

    def _kind(self, operator: Any) -> str:
        from ai_edge_litert.tools import flatbuffer_utils

        return str(flatbuffer_utils.opcode_to_name(self.model, operator.opcodeIndex))

    def _operators(self, *kinds: str) -> list[Any]:
        return [operator for operator in self._graph.operators if self._kind(operator) in kinds]

    def _data(self, tensor: Any) -> NDArray[np.uint8]:
        """The bytes of a constant."""
        data: NDArray[np.uint8] = self.model.buffers[tensor.buffer].data
        return data

    def _fill(self, tensor: Any, values: NDArray[Any]) -> None:
        """In a buffer of its own: constants that are equal share one."""
        self.model.buffers.append(self._schema.BufferT(data=values.reshape(-1).view("uint8")))
        tensor.buffer = len(self.model.buffers) - 1

    def _quantize(self, weights: Any, integers: NDArray[np.int8], scales: NDArray[np.float32]) -> None:
        import numpy as np

        self._fill(weights, integers)
        weights.type = self._schema.TensorType.INT8
        weights.quantization = self._schema.QuantizationParametersT(
            scale=scales, zeroPoint=np.zeros(len(scales), np.int64)
        )


def main(source: str, target: str) -> None:
    import onnx

    os.environ["LITERT_TORCH_SHOW_PROGRESS"] = "n"
    Path(target).write_bytes(convert(onnx.load(source)))


if __name__ == "__main__":
    main(*sys.argv[1:])
