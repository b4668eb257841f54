"""An artifact's ONNX graph as a PyTorch module again, for converters that start from PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx
    from torch import fx


def to_module(model: onnx.ModelProto) -> fx.GraphModule:
    """What computes an fp32 graph of `mbbench.export.to_onnx`, or the Q/DQ graph (u8s8 or s8s8) that was made of it.

    Takes images (N, 3, H, W), gives logits (N, classes). Q/DQ pairs become `quantized_decomposed` operators, as pt2e
    writes them, with the same scales; uint8 activations become int8 by a shift of 128, which changes no value.
    Quantized biases become the floats they stand for: who makes integers of them again takes the same scale.

    Raises `ValueError` for an operator that mbbench does not export.
    """
    return _Writer(model).write()


class _Writer:
    """Writes the operators that an ONNX node amounts to; a method for each type of node."""

    def __init__(self, model: onnx.ModelProto) -> None:
        import onnx
        import torch
        from torch import fx, nn
        from torch.ao.quantization.fx import _decomposed  # noqa: F401  (registers the operators)

        self._output = model.graph.output[0].name
        self._makers = {output: node for node in model.graph.node for output in node.output}
        self._arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        self._root, self._graph = nn.Module(), fx.Graph()
        self._values = {model.graph.input[0].name: self._graph.placeholder(model.graph.input[0].name)}
        self._pairs: dict[str, tuple[Any, ...]] = {}  # how a dequantized tensor was quantized
        self._operators = torch.ops.quantized_decomposed

    def write(self) -> fx.GraphModule:
        from torch import fx

        self._graph.output(self._value(self._output))
        return fx.GraphModule(self._root, self._graph).eval().requires_grad_(False)

    def _value(self, name: str) -> fx.Node:
        """What is computed under `name`, after all it depends on (quantizers leave nodes unsorted); or a constant."""
        import onnx
        import torch

        if name not in self._values:
            if name in self._makers and name not in self._arrays:
                node = self._makers[name]
                write = getattr(self, f"_{node.op_type}", None)
                if write is None:
                    raise ValueError(f"operator {node.op_type} ({node.name}) is unknown")
                attributes = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
                self._values[name] = write(node, attributes)
            else:
                own = f"constant_{len(self._values)}"
                self._root.register_buffer(own, torch.from_numpy(self._arrays[name].copy()))
                self._values[name] = self._graph.get_attr(own)
        return self._values[name]

    def _call(self, target: Callable[..., Any], *arguments: Any, **named: Any) -> fx.Node:
        return self._graph.call_function(target, arguments, named)

    def _QuantizeLinear(self, node: onnx.NodeProto, _: Any) -> fx.Node:  # noqa: N802
        return self._quantize(self._value(node.input[0]), self._limits(node))

    def _DequantizeLinear(self, node: onnx.NodeProto, own: dict[str, Any]) -> fx.Node:  # noqa: N802
        import torch

        if node.input[0] not in self._arrays:
            limits = self._pairs[node.output[0]] = self._limits(node)
            return self._dequantize(self._value(node.input[0]), limits)
        integers, scale = (self._arrays[name] for name in node.input[:2])
        if integers.dtype == "int32":
            self._arrays[node.output[0]] = (integers * scale).astype(scale.dtype)  # NumPy makes float64 of the two
            return self._value(node.output[0])
        scales = scale.reshape(-1)
        self._arrays[f"{node.name}.scales"] = scales
        self._arrays[f"{node.name}.zeros"] = (0 * scales).astype("int64")
        return self._call(
            self._operators.dequantize_per_channel.default,
            self._value(node.input[0]),
            self._value(f"{node.name}.scales"),
            self._value(f"{node.name}.zeros"),
            own["axis"],
            -127,
            127,
            torch.int8,
        )

    def _quantize(self, floats: fx.Node, limits: tuple[Any, ...]) -> fx.Node:
        return self._call(self._operators.quantize_per_tensor.default, floats, *limits)

    def _dequantize(self, integers: fx.Node, limits: tuple[Any, ...]) -> fx.Node:
        return self._call(self._operators.dequantize_per_tensor.default, integers, *limits)

    def _limits(self, node: onnx.NodeProto) -> tuple[Any, ...]:
        """Scale, zero point, smallest, largest and type of the int8 that the node quantizes to, or from."""
        import torch

        scale, zero = (self._arrays[name] for name in node.input[1:3])
        shift = 128 if zero.dtype == "uint8" else 0
        return float(scale), int(zero) - shift, -128, 127, torch.int8

    def _Conv(self, node: onnx.NodeProto, own: dict[str, Any]) -> fx.Node:  # noqa: N802
        from torch.nn import functional

        images, weight, bias = (self._value(name) if name else None for name in (*node.input, "")[:3])
        top, left, bottom, right = own["pads"]
        if (top, left) != (bottom, right):
            images = self._again(node.input[0], self._call(functional.pad, images, [left, right, top, bottom]))
            top = left = 0
        return self._call(
            functional.conv2d,
            images,
            weight,
            bias,
            own["strides"],
            [top, left],
            own["dilations"],
            own["group"],
        )

    def _again(self, name: str, padded: fx.Node) -> fx.Node:
        """Quantized as `name` was, which changes no value, so that the convolution keeps its pair."""
        if name not in self._pairs:
            return padded
        limits = self._pairs[name]
        return self._dequantize(self._quantize(padded, limits), limits)

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

    def _MaxPool(self, node: onnx.NodeProto, own: dict[str, Any]) -> fx.Node:  # noqa: N802
        from torch.nn import functional

        return self._call(
            functional.max_pool2d,
            self._value(node.input[0]),
            own["kernel_shape"],
            own["strides"],
            own["pads"][:2],
            ceil_mode=bool(own["ceil_mode"]),
        )

    def _Concat(self, node: onnx.NodeProto, own: dict[str, Any]) -> fx.Node:  # noqa: N802
        import torch

        return self._call(torch.cat, [self._value(name) for name in node.input], own["axis"])

    def _ReduceMean(self, node: onnx.NodeProto, own: dict[str, Any]) -> fx.Node:  # noqa: N802
        import torch

        axes = [int(axis) for axis in self._arrays[node.input[1]]]
        return self._call(torch.mean, self._value(node.input[0]), axes, bool(own["keepdims"]))

    def _MatMul(self, node: onnx.NodeProto, _: Any) -> fx.Node:  # noqa: N802
        import torch

        return self._call(torch.matmul, *map(self._value, node.input))

    def _Reshape(self, node: onnx.NodeProto, _: Any) -> fx.Node:  # noqa: N802
        import torch

        return self._call(torch.flatten, self._value(node.input[0]), 1)  # the only shape that is exported
