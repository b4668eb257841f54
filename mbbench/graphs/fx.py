"""An ONNX graph as a PyTorch module: the reference of every runtime, and the start of what begins with PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mbbench.graphs.operators import operators

if TYPE_CHECKING:
    import onnx
    from torch import fx, nn


def to_module(model: onnx.ModelProto, *, unsigned: bool = False) -> fx.GraphModule:
    """Return a module that computes an fp32 graph, or a u8s8 or s8s8 graph made from it.

    The module maps images (N, 3, H, W) to logits (N, classes). Convolutions and fully connected layers of an fp32 graph
    are submodules with the names of their nodes. Q/DQ pairs become `quantized_decomposed` operators, as pt2e writes
    them, with the same scales; unless `unsigned`, uint8 activations become int8 by a shift of 128, which changes no
    value. Quantized biases become the floats that they represent; a converter that quantizes them again gets the same
    scale. `meta["onnx"]` of the module is `model`.

    Raises `ValueError` for an operator, or a use of one, that is not supported.
    """
    return _Writer(model, unsigned).write()


def layer_calls(module: fx.GraphModule) -> list[tuple[str, fx.Node]]:
    """Return the names of the graph's layers (convolutions and matrix products), in the order in which they run.

    Each has the node of `module`'s graph that computes it.
    """
    return [(node.meta["layer"], node) for node in module.graph.nodes if "layer" in node.meta]


class _Writer:
    """Writes each ONNX node as PyTorch operators. The method `_X` writes nodes of type `X`, else `operators` does."""

    def __init__(self, model: onnx.ModelProto, unsigned: bool) -> None:
        import onnx
        import torch
        from torch import fx, nn
        from torch.ao.quantization.fx import _decomposed  # noqa: F401  (registers the operators)

        self._model, self._unsigned = model, unsigned
        self._output = model.graph.output[0].name
        self._producers = {output: node for node in model.graph.node for output in node.output}
        self._arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        self._root, self._graph = nn.Module(), fx.Graph()
        self._values = {model.graph.input[0].name: self._graph.placeholder(model.graph.input[0].name)}
        self._qparams: dict[str, tuple[Any, ...]] = {}  # how each dequantized tensor was quantized
        self._quantized = torch.ops.quantized_decomposed
        self._operators = operators()

    def write(self) -> fx.GraphModule:
        from torch import fx

        self._graph.output(self.value(self._output))
        module = fx.GraphModule(self._root, self._graph).eval().requires_grad_(False)
        module.meta["onnx"] = self._model
        return module

    def value(self, name: str) -> fx.Node:
        """Return the node that computes `name`, after writing those it depends on: quantizers leave nodes unsorted."""
        pending = [name]
        while pending:  # without recursion, which a deep network would exhaust
            node = self._producers.get(pending[-1])
            missing = [] if node is None or pending[-1] in self._arrays else [
                tensor for tensor in node.input
                if tensor and tensor not in self._values and tensor not in self._arrays
            ]  # fmt: skip
            if missing and pending[-1] not in self._values:
                pending += missing
            else:
                self._write(pending.pop())
        return self._values[name]

    def _write(self, name: str) -> None:
        import onnx
        import torch

        if name in self._values:
            return
        if name in self._arrays:
            buffer = f"constant_{len(self._values)}"
            self._root.register_buffer(buffer, torch.from_numpy(self._arrays[name].copy()))
            self._values[name] = self._graph.get_attr(buffer)
            return
        node = self._producers[name]
        attributes = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
        if (method := getattr(self, f"_{node.op_type}", None)) is not None:
            self._values[name] = method(node, attributes)
            if node.op_type in ("Conv", "ConvTranspose", "Gemm"):
                self._values[name].meta["layer"] = node.name
        elif (function := self._operators.get(node.op_type)) is not None:
            result = function(self, node, attributes)
            self._values.update(zip(node.output, result if isinstance(result, tuple) else (result,), strict=False))
            if node.op_type == "MatMul":
                self._values[name].meta["layer"] = node.name
        else:
            raise ValueError(f"operator {node.op_type} ({node.name}) is not supported")

    def constant(self, name: str) -> Any:
        """Return the constant tensor `name` as an array. Raises `ValueError` if it is computed."""
        if name not in self._arrays:
            raise ValueError(f"tensor {name} must be constant")
        return self._arrays[name]

    def call(self, target: Callable[..., Any], *arguments: Any, **keywords: Any) -> fx.Node:
        """Return a new node that calls `target`."""
        return self._graph.call_function(target, arguments, keywords)

    def _submodule(self, name: str, module: nn.Module, images: fx.Node) -> fx.Node:
        """Register `module` under the dotted `name`, and return a node that calls it."""
        from torch import nn

        parent = self._root
        *path, last = name.split(".")
        for part in path:
            if not hasattr(parent, part):
                parent.add_module(part, nn.Module())
            parent = getattr(parent, part)
        parent.add_module(last, module)
        return self._graph.call_module(name, (images,))

    def _QuantizeLinear(self, node: onnx.NodeProto, _: Any) -> fx.Node:  # noqa: N802
        return self._quantize(self.value(node.input[0]), self._node_qparams(node))

    def _DequantizeLinear(self, node: onnx.NodeProto, attributes: dict[str, Any]) -> fx.Node:  # noqa: N802
        import torch

        if node.input[0] not in self._arrays:
            qparams = self._qparams[node.output[0]] = self._node_qparams(node)
            return self._dequantize(self.value(node.input[0]), qparams)
        integers, scale, *zero = (self._arrays[name] for name in node.input)
        if integers.dtype == "int32" or scale.ndim == 0:  # biases; constants of other nodes than layers
            centered = integers.astype("int32") - (zero[0].astype("int32") if zero else 0)
            # NumPy's product of int32 and float32 is float64.
            self._arrays[node.output[0]] = (centered * scale).astype(scale.dtype)
            return self.value(node.output[0])
        scales = scale.reshape(-1)
        self._arrays[f"{node.name}.scales"] = scales
        self._arrays[f"{node.name}.zeros"] = (0 * scales).astype("int64")
        return self.call(
            self._quantized.dequantize_per_channel.default,
            self.value(node.input[0]),
            self.value(f"{node.name}.scales"),
            self.value(f"{node.name}.zeros"),
            attributes["axis"],
            -127,
            127,
            torch.int8,
        )

    def _quantize(self, floats: fx.Node, qparams: tuple[Any, ...]) -> fx.Node:
        return self.call(self._quantized.quantize_per_tensor.default, floats, *qparams)

    def _dequantize(self, integers: fx.Node, qparams: tuple[Any, ...]) -> fx.Node:
        return self.call(self._quantized.dequantize_per_tensor.default, integers, *qparams)

    def _node_qparams(self, node: onnx.NodeProto) -> tuple[Any, ...]:
        """Return scale, zero point, smallest and largest integer, and dtype of the node's 8-bit tensor."""
        import torch

        scale, zero = (self._arrays[name] for name in node.input[1:3])
        if self._unsigned and zero.dtype == "uint8":
            return float(scale), int(zero), 0, 255, torch.uint8
        shift = 128 if zero.dtype == "uint8" else 0
        return float(scale), int(zero) - shift, -128, 127, torch.int8

    def _Conv(self, node: onnx.NodeProto, attributes: dict[str, Any]) -> fx.Node:  # noqa: N802
        from torch import nn
        from torch.nn import functional

        top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
        images = self.value(node.input[0])
        if (top, left) != (bottom, right):
            images = self._requantize(node.input[0], self.call(functional.pad, images, [left, right, top, bottom]))
            top = left = 0
        options = {
            "stride": tuple(attributes.get("strides", (1, 1))),
            "padding": (top, left),
            "dilation": tuple(attributes.get("dilations", (1, 1))),
            "groups": attributes.get("group", 1),
        }
        if node.input[1] not in self._arrays:  # dequantized
            weight, bias = (self.value(name) if name else None for name in (*node.input[1:], "")[:2])
            return self.call(functional.conv2d, images, weight, bias, *options.values())
        weights = self._arrays[node.input[1]]
        layer = nn.Conv2d(
            weights.shape[1] * options["groups"], weights.shape[0], weights.shape[2:], device="meta", **options
        )
        return self._weighted(node, layer, images)

    def _Gemm(self, node: onnx.NodeProto, _: Any) -> fx.Node:  # noqa: N802
        from torch import nn
        from torch.nn import functional

        if node.input[1] not in self._arrays:  # dequantized
            return self.call(functional.linear, *map(self.value, node.input))
        outputs, inputs = self._arrays[node.input[1]].shape
        return self._weighted(node, nn.Linear(inputs, outputs, device="meta"), self.value(node.input[0]))

    def _ConvTranspose(self, node: onnx.NodeProto, attributes: dict[str, Any]) -> fx.Node:  # noqa: N802
        from torch.nn import functional

        top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
        if (top, left) != (bottom, right) or "output_shape" in attributes:
            raise ValueError(f"{node.name}: a transposed convolution with unequal padding is not supported")
        images, weight, bias = (self.value(name) if name else None for name in (*node.input, "")[:3])
        return self.call(
            functional.conv_transpose2d,
            images,
            weight,
            bias,
            attributes.get("strides", [1, 1]),
            [top, left],
            attributes.get("output_padding", [0, 0]),
            attributes.get("group", 1),
            attributes.get("dilations", [1, 1]),
        )

    def _weighted(self, node: onnx.NodeProto, layer: nn.Conv2d | nn.Linear, images: fx.Node) -> fx.Node:
        """Write a layer as a submodule. A missing bias, which the exporter drops if it is zero, becomes zeros."""
        import torch
        from torch import nn

        weight = torch.from_numpy(self._arrays[node.input[1]].copy())
        bias = torch.from_numpy(self._arrays[node.input[2]].copy()) if len(node.input) > 2 and node.input[2] else None
        layer.weight = nn.Parameter(weight, requires_grad=False)
        layer.bias = nn.Parameter(torch.zeros(len(weight)) if bias is None else bias, requires_grad=False)
        return self._submodule(node.name, layer, images)

    def _requantize(self, name: str, padded: fx.Node) -> fx.Node:
        """Put `padded` in the Q/DQ pair of `name`, so that the convolution still reads a pair. No value changes."""
        if name not in self._qparams:
            return padded
        qparams = self._qparams[name]
        return self._dequantize(self._quantize(padded, qparams), qparams)
