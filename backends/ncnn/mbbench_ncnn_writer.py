"""Conversion of an artifact's ONNX graph to ncnn's files: the network as text (.param) and its weights (.bin)."""

from __future__ import annotations

import math
import struct
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from numpy.typing import NDArray

_MAGIC = 7767517  # the first line of every .param
_FLOATS, _INTEGERS = 0, 0x000D4B38  # the tag before a layer's weights in a .bin
_RELU, _CLIP = 1, 3  # the activations that ncnn fuses into a layer
_REQUANTIZED = 100  # added to int8_scale_term if the layer rounds its output to int8
_NO_WINOGRAD = 1 << 6
_WEIGHTED = ("Conv", "Gemm")
_ACTIVATIONS = ("Clip", "Relu")
_UNBOUNDED = 3.4e38
_BINARY = {"Add": 0, "Sum": 0, "Sub": 1, "Mul": 2, "Div": 3}  # ncnn's numbers of the operations
_GLOBAL_POOLING = ("ReduceMean", "GlobalAveragePool")
_KEEPS_SHAPE = ("QuantizeLinear", "DequantizeLinear", *_ACTIVATIONS, "Sigmoid", "HardSigmoid", "HardSwish", *_BINARY)


@dataclass(frozen=True, slots=True)
class Layer:
    """A line of the .param, with the layer's part of the .bin."""

    type: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    settings: Mapping[int, int | float | Sequence[float]] = field(default_factory=dict)
    weights: bytes = b""

    def __str__(self) -> str:
        settings = [_setting(key, value) for key, value in self.settings.items()]
        counts = [str(len(self.inputs)), str(len(self.outputs))]
        return " ".join([self.type, self.name, *counts, *self.inputs, *self.outputs, *settings])


def write(model: onnx.ModelProto) -> tuple[str, bytes]:
    """Convert a graph to the text of a .param and the bytes of a .bin.

    `model` is an fp32 graph of `mbbench.graphs.onnx.to_onnx`, or the s8s8 graph quantized from it. Layers and blobs
    keep the names of the graph's nodes and tensors; activations are fused into the layers before them. Quantized
    tensors become int8, with the same scales, where an integer kernel reads them. Elsewhere the Q/DQ pair is left out:
    ncnn cannot convert int8 back to float, and the unrounded floats are more accurate.

    Raises `ValueError` for an operator that mbbench does not export.
    """
    layers = list(_split(_Writer(model).write()))
    blobs = sum(len(layer.outputs) for layer in layers)
    lines = [str(_MAGIC), f"{len(layers)} {blobs}", *map(str, layers)]
    return "".join(f"{line}\n" for line in lines), b"".join(layer.weights for layer in layers)


def _setting(key: int, value: int | float | Sequence[float]) -> str:
    if isinstance(value, int | float):
        return f"{key}={value}" if isinstance(value, int) else f"{key}={value:e}"
    return f"{-23300 - key}={len(value)},{','.join(f'{item:e}' for item in value)}"


def _split(layers: Sequence[Layer]) -> Iterator[Layer]:
    """Yield the layers, with a Split after each blob that several layers read: ncnn frees a blob after one read."""
    reads = Counter(name for layer in layers for name in layer.inputs)
    copies = {name: [f"{name}.{copy}" for copy in range(count)] for name, count in reads.items() if count > 1}
    unread = {name: iter(names) for name, names in copies.items()}
    for layer in layers:
        yield replace(layer, inputs=tuple(next(unread[name]) if name in unread else name for name in layer.inputs))
        for name in copies.keys() & layer.outputs:
            yield Layer("Split", f"{name}.split", (name,), tuple(copies[name]))


class _Writer:
    """A converter of an ONNX graph to ncnn layers, with one method per ONNX operator."""

    def __init__(self, model: onnx.ModelProto) -> None:
        import onnx

        graph = model.graph
        self._images, self._logits = graph.input[0].name, graph.output[0].name
        self._producers = {output: node for node in graph.node for output in node.output}
        self._readers: defaultdict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in set(node.input):
                self._readers[name].append(node)
        self._arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
        self._layers: list[Layer] = []
        self._blobs: dict[str, str] = {self._images: self._images}

    def write(self) -> list[Layer]:
        self._add("Input", self._images, (), self._images)
        self._blob(self._logits)
        return self._layers

    def _add(self, kind: str, name: str, inputs: Iterable[str], output: str, *settings_and_weights: Any) -> str:
        self._layers.append(Layer(kind, name, tuple(inputs), (output,), *settings_and_weights))
        return output

    def _blob(self, name: str) -> str:
        """Return the blob of tensor `name`, after adding all layers it depends on (quantizers leave nodes unsorted)."""
        if name not in self._blobs:
            self._blobs[name] = self._constant(name) if name in self._arrays else self._convert(name)
        return self._blobs[name]

    def _convert(self, name: str) -> str:
        node = self._producers[name]
        method = getattr(self, f"_{node.op_type}", None)
        if method is None:
            raise ValueError(f"operator {node.op_type} ({node.name}) is not supported")
        blob: str = method(node, _attributes(node))
        return blob

    def _constant(self, name: str) -> str:
        matrix = self._arrays[name]
        rows, columns = matrix.shape
        return self._add("MemoryData", name, (), name, {0: columns, 1: rows}, _floats(matrix))

    def _QuantizeLinear(self, node: onnx.NodeProto, _: Any) -> str:  # noqa: N802
        scale = self._arrays[node.input[1]]
        if self._fuses_into_convolution(node):
            return self._add_weighted(node.input[0], node.output[0], scale)
        return self._add("Quantize", node.name, [self._blob(node.input[0])], node.output[0], {}, _floats(1 / scale))

    def _DequantizeLinear(self, node: onnx.NodeProto, _: Any) -> str:  # noqa: N802
        if node.input[0] not in self._arrays:
            return self._blob(self._producers[node.input[0]].input[0])
        self._arrays[node.output[0]] = self._arrays[node.input[0]] * self._arrays[node.input[1]]
        return self._constant(node.output[0])

    def _fuses_into_convolution(self, quantizer: onnx.NodeProto) -> bool:
        """Return whether the quantized tensor comes from an int8 convolution, which can round its output itself."""
        producer = self._producers.get(quantizer.input[0])
        if producer is not None and producer.op_type in _ACTIVATIONS:
            if len(self._readers[producer.input[0]]) > 1:
                return False
            producer = self._producers.get(producer.input[0])
        if producer is None or producer.op_type != "Conv" or self._is_pooled(producer.input[0]):
            return False  # fully connected layers cannot
        dequantized = [node.output[0] for node in self._readers[quantizer.output[0]]]
        readers = [reader for name in dequantized for reader in self._readers[name]]
        # A reader in floats would need the convolution once more.
        return self._is_integer(producer) and all(map(self._is_integer, readers))

    def _is_integer(self, node: onnx.NodeProto) -> bool:
        return node.op_type in _WEIGHTED and all(
            name in self._producers and self._producers[name].op_type == "DequantizeLinear" for name in node.input[:2]
        )

    def _Conv(self, node: onnx.NodeProto, _: Any) -> str:  # noqa: N802
        return self._add_weighted(node.output[0], node.output[0])

    _Gemm = _Conv

    def _Relu(self, node: onnx.NodeProto, _: Any) -> str:  # noqa: N802
        producer = self._producers.get(node.input[0])
        if producer is not None and producer.op_type in _WEIGHTED and len(self._readers[node.input[0]]) == 1:
            return self._add_weighted(node.output[0], node.output[0])  # ncnn fuses the activation into the layer
        if node.input[0] == self._images:  # ncnn computes in place, but the images are not its own
            raise ValueError(f"{node.op_type} of the images ({node.name}) is not supported")
        source = self._blob(node.input[0])
        if node.op_type == "Relu":
            return self._add("ReLU", node.name, [source], node.output[0])
        low, high = self._bounds(node)
        return self._add("Clip", node.name, [source], node.output[0], {0: low, 1: high})

    _Clip = _Relu

    def _binary(self, node: onnx.NodeProto, _: Any) -> str:
        """Add a sum, product, difference or quotient of two blobs, or of a blob and a number."""
        operation = _BINARY[node.op_type]
        if len(node.input) != 2:
            raise ValueError(f"{node.op_type} of {len(node.input)} tensors ({node.name}) is not supported")
        constants = [name for name in node.input if name in self._arrays]
        number = self._arrays[constants[0]] if len(constants) == 1 else None
        (source, *_) = [name for name in node.input if name not in self._arrays] or [""]
        in_place = source != self._images and (node.input[0] == source or node.op_type in ("Add", "Sum", "Mul"))
        if number is not None and number.size == 1 and in_place:
            settings = {0: operation, 1: 1, 2: float(number.ravel()[0])}
            return self._add("BinaryOp", node.name, [self._blob(source)], node.output[0], settings)
        blobs = [self._operand(name, node) for name in node.input]
        return self._add("BinaryOp", node.name, blobs, node.output[0], {0: operation})

    def _operand(self, name: str, node: onnx.NodeProto) -> str:
        """Return the blob of an operand: a tensor, a number, or a constant with a value for each channel."""
        if name not in self._arrays:
            return self._blob(name)
        array = self._arrays[name]
        sides = (1,) * (4 - array.ndim) + array.shape
        if max(sides[0], *sides[2:]) > 1:
            raise ValueError(f"{node.op_type} of a constant ({node.name}) is not supported")
        blob = f"{node.name}.{name}"
        return self._add("MemoryData", blob, (), blob, {0: 1, 1: 1, 2: sides[1]}, _floats(array))

    _Add = _Sum = _Sub = _Mul = _Div = _binary

    def _Sigmoid(self, node: onnx.NodeProto, _: Any) -> str:  # noqa: N802
        return self._add("Sigmoid", node.name, [self._blob(node.input[0])], node.output[0])

    def _HardSigmoid(self, node: onnx.NodeProto, attributes: dict[str, Any]) -> str:  # noqa: N802
        alpha, beta = attributes.get("alpha", 0.2), attributes.get("beta", 0.5)
        return self._add("HardSigmoid", node.name, [self._blob(node.input[0])], node.output[0], {0: alpha, 1: beta})

    def _HardSwish(self, node: onnx.NodeProto, _: Any) -> str:  # noqa: N802
        return self._add("HardSwish", node.name, [self._blob(node.input[0])], node.output[0], {0: 1 / 6, 1: 0.5})

    def _add_weighted(self, result: str, blob: str, scale: NDArray[np.float32] | None = None) -> str:
        """Add the convolution or fully connected layer that computes tensor `result`, with its activation, as `blob`.

        With `scale`, the layer rounds its output, and `blob` holds `result` in int8.
        """
        node = self._producers[result]
        settings: dict[int, int | float | Sequence[float]] = {}
        if node.op_type not in _WEIGHTED:
            settings = self._activation(node)
            node = self._producers[node.input[0]]
        if node.op_type not in _WEIGHTED:
            raise ValueError(f"an activation after {node.op_type} ({node.name}) is not supported")
        source, weight = node.input[:2]
        bias = _floats(self._arrays[node.input[2]]) if len(node.input) > 2 else b""
        if not self._is_integer(node):
            tensors = [struct.pack("<I", _FLOATS), _floats(self._arrays[weight]), bias]
            weights = self._arrays[weight]
        else:
            source = self._producers[source].input[0]
            weight, weight_scale = self._producers[weight].input[:2]
            weights = self._arrays[weight]
            input_scale = self._arrays[self._producers[source].input[1]]
            tensors = [struct.pack("<I", _INTEGERS), weights.tobytes(), bytes(-weights.size % 4), bias]
            tensors += [_floats(1 / self._arrays[weight_scale]), _floats(1 / input_scale)]
            settings[8] = 1
        if scale is not None:
            tensors.append(_floats(1 / scale))
            settings[8] = 1 + _REQUANTIZED
        flat = node.op_type == "Conv" and self._is_pooled(source)
        kind, geometry = _geometry(node, weights.shape, bool(bias), self._is_integer(node), flat)
        return self._add(kind, node.name, [self._blob(source)], blob, geometry | settings, b"".join(tensors))

    def _is_pooled(self, name: str) -> bool:
        """Return whether ncnn holds the tensor as a vector: it comes from global pooling, as in squeeze-and-excite."""
        pending = [name]
        while pending:
            node = self._producers.get(pending.pop())
            if node is None:
                return False
            if node.op_type in _GLOBAL_POOLING:
                continue
            is_pointwise = node.op_type == "Conv" and list(_attributes(node).get("kernel_shape", ())) == [1, 1]
            if not is_pointwise and node.op_type not in _KEEPS_SHAPE:
                return False
            inputs = node.input[:1] if is_pointwise else node.input
            pending += [tensor for tensor in inputs if tensor and tensor not in self._arrays]
        return True

    def _activation(self, node: onnx.NodeProto) -> dict[int, int | float | Sequence[float]]:
        return {9: _RELU} if node.op_type == "Relu" else {9: _CLIP, 10: self._bounds(node)}

    def _bounds(self, node: onnx.NodeProto) -> list[float]:
        names = (*node.input[1:], "", "")[:2]
        open_ends = (-_UNBOUNDED, _UNBOUNDED)
        return [float(self._arrays[name]) if name else end for name, end in zip(names, open_ends, strict=True)]

    def _MaxPool(self, node: onnx.NodeProto, attributes: dict[str, Any]) -> str:  # noqa: N802
        kind = 0 if node.op_type == "MaxPool" else 1
        (height, width), (stride_h, stride_w) = attributes["kernel_shape"], attributes.get("strides", (1, 1))
        top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
        mode = 0 if attributes.get("ceil_mode") else 1
        if any(dilation > 1 for dilation in attributes.get("dilations", ())):
            raise ValueError(f"pooling with dilation ({node.name}) is not supported")
        if kind == 1 and mode == 0 and attributes.get("count_include_pad"):
            raise ValueError(f"average pooling with ceil_mode and count_include_pad ({node.name}) is not supported")
        settings = {0: kind, 1: width, 11: height, 2: stride_w, 12: stride_h}
        settings |= {3: left, 14: right, 13: top, 15: bottom, 5: mode}
        if kind == 1:
            settings[6] = attributes.get("count_include_pad", 0)
        return self._add("Pooling", node.name, [self._blob(node.input[0])], node.output[0], settings)

    _AveragePool = _MaxPool

    def _ReduceMean(self, node: onnx.NodeProto, attributes: dict[str, Any]) -> str:  # noqa: N802
        if len(node.input) > 1 and sorted(axis % 4 for axis in self._arrays[node.input[1]].tolist()) != [2, 3]:
            raise ValueError(f"a mean over other axes than height and width ({node.name}) is not supported")
        return self._add("Pooling", node.name, [self._blob(node.input[0])], node.output[0], {0: 1, 4: 1})

    _GlobalAveragePool = _ReduceMean

    def _Concat(self, node: onnx.NodeProto, attributes: dict[str, Any]) -> str:  # noqa: N802
        if attributes["axis"] != 1:
            raise ValueError(f"a concatenation of other axes than the channels ({node.name}) is not supported")
        return self._add("Concat", node.name, map(self._blob, node.input), node.output[0])

    def _MatMul(self, node: onnx.NodeProto, _: Any) -> str:  # noqa: N802
        return self._add("MatMul", node.name, map(self._blob, node.input), node.output[0])

    def _Reshape(self, node: onnx.NodeProto, _: Any) -> str:  # noqa: N802
        if len(node.input) > 1 and len(self._arrays[node.input[1]]) != 2:
            raise ValueError(f"a reshape to more than one axis ({node.name}) is not supported")
        return self._add("Flatten", node.name, [self._blob(node.input[0])], node.output[0])

    _Flatten = _Reshape


def _geometry(
    node: onnx.NodeProto, shape: tuple[int, ...], bias: bool, integer: bool, flat: bool
) -> tuple[str, dict[int, int | float | Sequence[float]]]:
    """Return ncnn's type of a weighted layer, and its settings by ncnn's parameter numbers."""
    outputs, size, attributes = shape[0], math.prod(shape), _attributes(node)
    if flat and (shape[2:] != (1, 1) or attributes.get("group", 1) > 1 or any(attributes.get("pads", ()))):
        raise ValueError(f"a convolution of pooled pixels ({node.name}) is not supported, except a full one of 1x1")
    if node.op_type == "Gemm" or flat:
        return "InnerProduct", {0: outputs, 1: int(bias), 2: size}
    (height, width), (stride_h, stride_w) = shape[2:], attributes.get("strides", (1, 1))
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    settings: dict[int, int | float | Sequence[float]] = {0: outputs, 1: width, 11: height, 3: stride_w, 13: stride_h}
    settings |= {4: left, 15: right, 14: top, 16: bottom, 5: int(bias), 6: size}
    if integer:
        settings[31] = _NO_WINOGRAD  # ncnn's int8 transforms are exact only for 6-bit weights
    dilation_h, dilation_w = attributes.get("dilations", (1, 1))
    settings |= {2: dilation_w, 12: dilation_h}
    if attributes.get("group", 1) == 1:
        return "Convolution", settings
    return "ConvolutionDepthWise", settings | {7: attributes["group"]}


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    import onnx

    return {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}


def _floats(values: NDArray[Any]) -> bytes:
    return values.astype("<f4").tobytes()
