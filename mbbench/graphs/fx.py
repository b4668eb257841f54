"""An artifact's ONNX graph as a PyTorch module, for converters that start from PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx
    from torch import fx


def to_module(model: onnx.ModelProto) -> fx.GraphModule:
    """Return a module that computes an fp32 graph of `graphs.onnx.to_onnx` or a u8s8 or s8s8 graph made from it.

    The module maps images (N, 3, H, W) to logits (N, classes). Q/DQ pairs become `quantized_decomposed` operators, as
    pt2e writes them, with the same scales; uint8 activations become int8 by a shift of 128, which changes no value.
    Quantized biases become the floats that they represent; a converter that quantizes them again gets the same scale.

    Raises `ValueError` for an operator that mbbench does not export.
    """
    return _Writer(model).write()


class _Writer:
    """Writes each ONNX node as PyTorch operators. The method `_X` writes nodes of type `X`."""

    def __init__(self, model: onnx.ModelProto) -> None:
        import onnx
        import torch
        from torch import fx, nn
        from torch.ao.quantization.fx import _decomposed  # noqa: F401  (registers the operators)

        self._output = model.graph.output[0].name
        self._producers = {output: node for node in model.graph.node for output in node.output}
        self._arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        self._root, self._graph = nn.Module(), fx.Graph()
        self._values = {model.graph.input[0].name: self._graph.placeholder(model.graph.input[0].name)}
        self._qparams: dict[str, tuple[Any, ...]] = {}  # how each dequantized tensor was quantized
        self._operators = torch.ops.quantized_decomposed

    def write(self) -> fx.GraphModule:
        from torch import fx

        self._graph.output(self._value(self._output))
        return fx.GraphModule(self._root, self._graph).eval().requires_grad_(False)

    def _value(self, name: str) -> fx.Node:
        """Return the node that computes `name`, after writing its inputs: quantizers leave ONNX nodes unsorted."""
        import onnx
        import torch

        if name not in self._values:
            if name in self._producers and name not in self._arrays:
                node = self._producers[name]
                write = getattr(self, f"_{node.op_type}", None)
                if write is None:
                    raise ValueError(f"operator {node.op_type} ({node.name}) is not supported by the PyTorch converter")
                attributes = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
                self._values[name] = write(node, attributes)
            else:
                buffer = f"constant_{len(self._values)}"
                self._root.register_buffer(buffer, torch.from_numpy(self._arrays[name].copy()))
                self._values[name] = self._graph.get_attr(buffer)
        return self._values[name]

    def _call(self, target: Callable[..., Any], *arguments: Any, **keywords: Any) -> fx.Node:
        return self._graph.call_function(target, arguments, keywords)

    def _QuantizeLinear(self, node: onnx.NodeProto, _: Any) -> fx.Node:  # noqa: N802
        return self._quantize(self._value(node.input[0]), self._node_qparams(node))

    def _DequantizeLinear(self, node: onnx.NodeProto, attributes: dict[str, Any]) -> fx.Node:  # noqa: N802
        import torch

        if node.input[0] not in self._arrays:
            qparams = self._qparams[node.output[0]] = self._node_qparams(node)
            return self._dequantize(self._value(node.input[0]), qparams)
        integers, scale = (self._arrays[name] for name in node.input[:2])
        if integers.dtype == "int32":
            # NumPy's product of int32 and float32 is float64.
            self._arrays[node.output[0]] = (integers * scale).astype(scale.dtype)
            return self._value(node.output[0])
        scales = scale.reshape(-1)
        self._arrays[f"{node.name}.scales"] = scales
        self._arrays[f"{node.name}.zeros"] = (0 * scales).astype("int64")
        return self._call(
            self._operators.dequantize_per_channel.default,
            self._value(node.input[0]),
            self._value(f"{node.name}.scales"),
            self._value(f"{node.name}.zeros"),
            attributes["axis"],
            -127,
            127,
            torch.int8,
        )

    def _quantize(self, floats: fx.Node, qparams: tuple[Any, ...]) -> fx.Node:
        return self._call(self._operators.quantize_per_tensor.default, floats, *qparams)

    def _dequantize(self, integers: fx.Node, qparams: tuple[Any, ...]) -> fx.Node:
        return self._call(self._operators.dequantize_per_tensor.default, integers, *qparams)

    def _node_qparams(self, node: onnx.NodeProto) -> tuple[Any, ...]:
        """Return scale, zero point, smallest and largest integer, and dtype of the node's int8 tensor."""
        import torch

        scale, zero = (self._arrays[name] for name in node.input[1:3])
        shift = 128 if zero.dtype == "uint8" else 0
        return float(scale), int(zero) - shift, -128, 127, torch.int8

    def _Conv(self, node: onnx.NodeProto, attributes: dict[str, Any]) -> fx.Node:  # noqa: N802
        from torch.nn import functional

        images, weight, bias = (self._value(name) if name else None for name in (*node.input, "")[:3])
        top, left, bottom, right = attributes["pads"]
        if (top, left) != (bottom, right):
            images = self._requantize(node.input[0], self._call(functional.pad, images, [left, right, top, bottom]))
            top = left = 0
        return self._call(
            functional.conv2d,
            images,
            weight,
            bias,
            attributes["strides"],
            [top, left],
            attributes["dilations"],
            attributes["group"],
        )

    def _requantize(self, name: str, padded: fx.Node) -> fx.Node:
        """Put `padded` in the Q/DQ pair of `name`, so that the convolution still reads a pair. No value changes."""
        if name not in self._qparams:
            return padded
        qparams = self._qparams[name]
        return self._dequantize(self._quantize(padded, qparams), qparams)

    def _Gemm(self, node: onnx.NodeProto, _: Any) -> fx.Node:  # noqa: N802
        from torch.nn import functional

        return self._call(functional.linear, *map(self._value, node.input))

    def _Clip(self, node: onnx.NodeProto, _: Any) -> fx.Node:  # noqa: N802
        from torch.nn import functional

        low, high = (float(self._arrays[name]) for name in node.input[1:])
        return self._call(functional.hardtanh, self._value(node.input[0]), low, high)

    def _Relu(self, node: onnx.NodeProto, _: Any) -> fx.Node:  # noqa: N802
        from torch.nn import functional

        return self._call(functional.relu, self._value(node.input[0]))

    def _MaxPool(self, node: onnx.NodeProto, attributes: dict[str, Any]) -> fx.Node:  # noqa: N802
        from torch.nn import functional

        return self._call(
            functional.max_pool2d,
            self._value(node.input[0]),
            attributes["kernel_shape"],
            attributes["strides"],
            attributes["pads"][:2],
            ceil_mode=bool(attributes["ceil_mode"]),
        )

    def _Concat(self, node: onnx.NodeProto, attributes: dict[str, Any]) -> fx.Node:  # noqa: N802
        import torch

        return self._call(torch.cat, [self._value(name) for name in node.input], attributes["axis"])

    def _ReduceMean(self, node: onnx.NodeProto, attributes: dict[str, Any]) -> fx.Node:  # noqa: N802
        import torch

        axes = [int(axis) for axis in self._arrays[node.input[1]]]
        return self._call(torch.mean, self._value(node.input[0]), axes, bool(attributes["keepdims"]))

    def _MatMul(self, node: onnx.NodeProto, _: Any) -> fx.Node:  # noqa: N802
        import torch

        return self._call(torch.matmul, *map(self._value, node.input))

    def _Reshape(self, node: onnx.NodeProto, _: Any) -> fx.Node:  # noqa: N802
        import torch

        return self._call(torch.flatten, self._value(node.input[0]), 1)  # mbbench exports no other shape
