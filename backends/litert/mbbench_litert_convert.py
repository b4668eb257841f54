"""The program that converts an artifact to a LiteRT file: `python -m mbbench_litert_convert ONNX TFLITE`."""

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
    """Convert an fp32 or u8s8 graph to a LiteRT file for one image (1, 3, H, W), resizable to N images.

    Raises `ValueError` if an operator is not supported, or if a layer's weights in the file differ from the graph's by
    more than a factor.
    """
    import torch

    _, *shape = (dimension.dim_value for dimension in model.graph.input[0].type.tensor_type.shape.dim)
    network = to_module(model)
    _quantize_weights(network)
    _quantize_concatenations(network)
    import litert_torch  # takes seconds, so after unsupported graphs are refused

    converted = litert_torch.convert(network, (torch.zeros(1, *shape),), quant_config=_keep_quantization())
    return _finish(converted.model_content(), _layers(model))


def _keep_quantization() -> Any:
    """Return the option that makes the converter turn Q/DQ pairs into integer kernels; its quantizer never runs."""
    from litert_torch.quantize.pt2e_quantizer import PT2EQuantizer, get_symmetric_quantization_config
    from litert_torch.quantize.quant_config import QuantConfig

    return QuantConfig(pt2e_quantizer=PT2EQuantizer().set_global(get_symmetric_quantization_config()))


def _quantize_weights(network: fx.GraphModule) -> None:
    """Replace int8 weights by float weights that are quantized in the graph: the converter accepts only these.

    The weights of a matrix product (VGG16's pooling) stay float: they have several scales, and LiteRT allows one.
    """
    import torch

    operators = torch.ops.quantized_decomposed
    for node in network.graph.nodes:
        if node.target is operators.dequantize_per_channel.default:
            integers, scales, zeros, *limits = node.args
            tensors = (network.get_buffer(buffer.target) for buffer in (integers, scales, zeros))
            network.register_buffer(integers.target, operators.dequantize_per_channel(*tensors, *limits))
            if any(user.target is torch.matmul for user in node.users):
                node.replace_all_uses_with(integers)
                continue
            with network.graph.inserting_before(node):
                quantized = network.graph.call_function(
                    operators.quantize_per_channel.default, (integers, scales, zeros, *limits)
                )
            node.update_arg(0, quantized)
    network.graph.eliminate_dead_code()
    network.recompile()


def _quantize_concatenations(network: fx.GraphModule) -> None:
    """Add a Q/DQ pair after every concatenation of quantized tensors that has none, with its inputs' largest scale.

    The converter would use the scale of the first input, and clip larger values of the others.
    """
    import torch

    operators = torch.ops.quantized_decomposed
    quantize, dequantize = operators.quantize_per_tensor.default, operators.dequantize_per_tensor.default
    for node in network.graph.nodes:
        if (
            node.target is torch.cat
            and all(part.target is dequantize for part in node.args[0])
            and not any(user.target is quantize for user in node.users)
        ):
            limits = max((part.args[1:] for part in node.args[0]), key=lambda limits: limits[0])
            with network.graph.inserting_after(node):
                integers = network.graph.call_function(quantize, (node, *limits))
            with network.graph.inserting_after(integers):
                floats = network.graph.call_function(dequantize, (integers, *limits))
            node.replace_all_uses_with(floats, delete_user_cb=lambda user, quantized=integers: user is not quantized)
    network.recompile()


@dataclass(frozen=True, slots=True)
class _Layer:
    """A layer with weights."""

    name: str
    weights: NDArray[Any]  # in LiteRT's order: (out, H, W, in), depthwise (1, H, W, out), fully connected (out, in)
    scales: NDArray[np.float32] | None  # None: the weights are fp32


def _layers(model: onnx.ModelProto) -> list[_Layer]:
    """Return the layers with weights of an ONNX graph."""
    import onnx

    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    producers = {output: node for node in model.graph.node for output in node.output}
    layers = []
    for node in model.graph.node:
        if node.op_type not in ("Conv", "Gemm"):
            continue
        source, scales = node.input[1], None
        if source not in arrays:  # the output of a DequantizeLinear
            source, scale, *_ = producers[source].input
            scales = arrays[scale].reshape(-1)
        weights = arrays[source]
        if node.op_type == "Conv":
            is_depthwise = any(attribute.name == "group" and attribute.i > 1 for attribute in node.attribute)
            weights = weights.transpose((1, 2, 3, 0) if is_depthwise else (0, 2, 3, 1))
        layers.append(_Layer(node.name, weights, scales))
    return layers


def _finish(content: bytes, layers: list[_Layer]) -> bytes:
    """Return the converter's file with the changes that the converter has no options for."""
    from ai_edge_litert.tools import flatbuffer_utils

    editor = _Editor(content)
    editor.name_layers(layers)
    editor.pad_in_convolutions()
    editor.allow_any_batch()
    editor.quantize_images()
    editor.drop_unused_constants()
    return bytes(flatbuffer_utils.convert_object_to_bytearray(editor.model))


class _Editor:
    """An editor of a LiteRT file as a tree of its schema's objects."""

    def __init__(self, content: bytes) -> None:
        from ai_edge_litert import schema_py_generated
        from ai_edge_litert.tools import flatbuffer_utils

        self._schema = schema_py_generated
        self.model = flatbuffer_utils.read_model_from_bytearray(content)
        (self._graph,) = self.model.subgraphs

    def name_layers(self, layers: list[_Layer]) -> None:
        """Name each layer's output after the layer, which is identified by its weights.

        The converter writes float weights for a fully connected layer whose output has no scale. As int8 they take a
        quarter of the size, and XNNPACK rounds the inputs again, multiplies integers and still returns floats.
        """
        by_weights: dict[bytes, _Layer] = {}
        for layer in layers:
            by_weights[layer.weights.tobytes()] = layer
            if layer.scales is not None and layer.weights.ndim == 2:
                by_weights[(layer.weights * layer.scales[:, None]).tobytes()] = layer
        missing = {layer.name for layer in layers}
        for operator in self._operators(*_WEIGHTED):
            weights = self._graph.tensors[operator.inputs[1]]
            known = by_weights.get(self._data(weights).tobytes()) or self._scaled_layer(weights, layers)
            if known is None:  # a matrix product (VGG16's pooling)
                continue
            if known.scales is not None and weights.type == self._schema.TensorType.FLOAT32:
                self._quantize(weights, known.weights, known.scales)
            self._graph.tensors[operator.outputs[0]].name = known.name.encode()
            missing.discard(known.name)
        if missing:
            raise ValueError(f"the converter changed the weights of {', '.join(sorted(missing))}")

    def _scaled_layer(self, weights: Any, layers: list[_Layer]) -> _Layer | None:
        """Return the layer whose float weights are those of the file but for a factor, such as a hard sigmoid's 1/6."""
        import numpy as np

        if weights.type != self._schema.TensorType.FLOAT32:
            return None
        values = self._data(weights).view("float32")
        for layer in layers:
            if layer.scales is None and list(layer.weights.shape) == list(weights.shape):
                before = layer.weights.reshape(-1)
                largest = int(np.abs(before).argmax())
                if np.allclose(values, before * (values[largest] / before[largest]), rtol=1e-4, atol=0):
                    return layer
        return None

    def pad_in_convolutions(self) -> None:
        """Replace Keras's padding at stride 2 by LiteRT's SAME padding, which needs no operator.

        The converter does so itself in fp32. In a quantized graph it pads in channels-first layout, between two
        transpositions, which makes the network 50 % slower at 0.5/128.
        """
        producers = {output: operator for operator in self._graph.operators for output in operator.outputs}
        for operator in self._operators("CONV_2D", "DEPTHWISE_CONV_2D"):
            transpose = producers.get(operator.inputs[0])
            if transpose is None or self._kind(transpose) != "TRANSPOSE":
                continue
            pad = producers.get(transpose.inputs[0])
            if pad is None or self._kind(pad) != "PAD" or not self._is_same(pad):
                continue
            source = pad.inputs[0]
            previous = producers.get(source)
            self._graph.operators.remove(pad)
            if previous is not None and self._kind(previous) == "TRANSPOSE":
                self._graph.operators.remove(previous)
                self._graph.operators.remove(transpose)
                operator.inputs[0] = previous.inputs[0]
            else:
                transpose.inputs[0] = source
                batch, channels, height, width = self._graph.tensors[source].shape
                self._graph.tensors[transpose.outputs[0]].shape = [batch, height, width, channels]
            operator.builtinOptions.padding = self._schema.Padding.SAME

    def _is_same(self, pad: Any) -> bool:
        """Return whether `pad` pads as SAME does for a 3x3 convolution of stride 2, in channels-first layout."""
        amounts = self._data(self._graph.tensors[pad.inputs[1]]).view("int32").tolist()
        _, _, height, width = self._graph.tensors[pad.inputs[0]].shape
        return bool(amounts == [0, 0, 0, 0, 0, 1, 0, 1] and height % 2 == width % 2 == 0)

    def allow_any_batch(self) -> None:
        """Let reshapes infer their first dimension, the batch size or a multiple of it, and slices keep whole axes."""
        import numpy as np

        for operator in self._operators("SLICE"):
            sizes = self._graph.tensors[operator.inputs[0]].shape
            begin, size = (self._data(self._graph.tensors[index]).view("int32") for index in operator.inputs[1:3])
            kept = np.where((begin == 0) & (size == sizes), -1, size).astype(np.int32)
            self._fill(self._graph.tensors[operator.inputs[2]], kept)

        for operator in self._operators("RESHAPE"):
            shape = self._graph.tensors[operator.inputs[1]]
            sizes = self._data(shape).view("int32").tolist()
            self._fill(shape, np.array([-1, *sizes[1:]], np.int32))
            operator.builtinOptions = None  # repeats the shape

    def quantize_images(self) -> None:
        """Quantize the images in the file if the first layer expects int8; the converter leaves it to the caller."""
        schema, graph = self._schema, self._graph
        (first_input,) = graph.inputs
        quantized = graph.tensors[first_input]
        if quantized.type == schema.TensorType.FLOAT32:
            return
        images = schema.TensorT(name=b"images", shape=quantized.shape, type=schema.TensorType.FLOAT32)
        graph.tensors.append(images)
        graph.inputs = [len(graph.tensors) - 1]
        self.model.signatureDefs[0].inputs[0].tensorIndex = graph.inputs[0]
        code = schema.BuiltinOperator.QUANTIZE
        self.model.operatorCodes.append(schema.OperatorCodeT(builtinCode=code, deprecatedBuiltinCode=code, version=1))
        index = len(self.model.operatorCodes) - 1
        graph.operators.insert(0, schema.OperatorT(opcodeIndex=index, inputs=graph.inputs, outputs=[first_input]))

    def drop_unused_constants(self) -> None:
        used = {tensor.buffer for tensor in self._graph.tensors}
        used |= {metadata.buffer for metadata in self.model.metadata or ()}
        for index, buffer in enumerate(self.model.buffers):
            if index not in used:
                buffer.data = None

    def _kind(self, operator: Any) -> str:
        from ai_edge_litert.tools import flatbuffer_utils

        return str(flatbuffer_utils.opcode_to_name(self.model, operator.opcodeIndex))

    def _operators(self, *kinds: str) -> list[Any]:
        return [operator for operator in self._graph.operators if self._kind(operator) in kinds]

    def _data(self, tensor: Any) -> NDArray[np.uint8]:
        """Return the bytes of a constant."""
        data: NDArray[np.uint8] = self.model.buffers[tensor.buffer].data
        return data

    def _fill(self, tensor: Any, values: NDArray[Any]) -> None:
        """Give `tensor` a new buffer with `values`: equal constants share a buffer."""
        self.model.buffers.append(self._schema.BufferT(data=values.reshape(-1).view("uint8")))
        tensor.buffer = len(self.model.buffers) - 1

    def _quantize(self, weights: Any, integers: NDArray[np.int8], scales: NDArray[np.float32]) -> None:
        """Replace float weights by int8 weights with one scale per output."""
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
