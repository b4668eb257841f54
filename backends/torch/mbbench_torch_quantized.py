"""A folded network whose layers hold int8 weights, as PyTorch's own quantization (pt2e) leaves them for Inductor."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn


def load(module: nn.Module, state: dict[str, Tensor]) -> None:
    """Load the tensors of `mbbench.graphs.tensors.parameters` into `module`. Raises `KeyError` if one is missing.

    A quantized layer's input goes through quantize and dequantize, its weights through dequantize: operators that
    Inductor on x86 replaces, with the convolution between them, by oneDNN's integer kernels. That is what torchao's
    pt2e with its x86 quantizer writes; here the scales are those of every other runtime, from one calibration.
    """
    import torch
    from torch import nn
    from torch.ao.quantization.fx import _decomposed  # noqa: F401  (registers the operators)

    operators = torch.ops.quantized_decomposed

    class Quantized(nn.Module):
        def __init__(self, layer: nn.Conv2d | nn.Linear, name: str) -> None:
            super().__init__()
            self.layer = layer
            self.scale = float(state[f"{name}.input_scale"])
            self.zero_point = int(state[f"{name}.input_zero_point"])
            self.register_buffer("integers", state[f"{name}.weight"])
            self.register_buffer("scales", state[f"{name}.weight_scale"])
            self.register_buffer("zeros", torch.zeros(len(state[f"{name}.weight"]), dtype=torch.int64))

        def forward(self, x: Tensor) -> Tensor:
            limits = (self.scale, self.zero_point, 0, 255, torch.uint8)
            x = operators.dequantize_per_tensor(operators.quantize_per_tensor(x, *limits), *limits)
            weight = operators.dequantize_per_channel(self.integers, self.scales, self.zeros, 0, -128, 127, torch.int8)
            return forward(self.layer, x, weight)

    from mbbench.compress.correct import forward

    layers = [(name, layer) for name, layer in module.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    for name, layer in layers:
        assert layer.bias is not None
        layer.bias.data.copy_(state[f"{name}.bias"])
        if f"{name}.weight_scale" not in state:
            layer.weight.data.copy_(state[f"{name}.weight"])
            continue
        parent, _, own = name.rpartition(".")
        setattr(module.get_submodule(parent), own, Quantized(layer, name))
