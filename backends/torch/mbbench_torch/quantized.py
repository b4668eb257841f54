"""Loading of int8 weights into a folded network, in the form that PyTorch's pt2e quantization gives Inductor."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn


def load(module: nn.Module, state: dict[str, Tensor]) -> None:
    """Load the tensors of `mbbench.graphs.tensors.parameters` into `module`, in place.

    Each quantized layer quantizes and dequantizes its input and dequantizes its weights. Inductor on x86 replaces these
    operators, and the convolution between them, with oneDNN's integer kernels. torchao's pt2e writes the same form with
    its x86 quantizer; here the scales are those of the dialect u8s8, which other runtimes share.

    Raises `KeyError` if a tensor is missing.
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
        parent, _, attribute = name.rpartition(".")
        setattr(module.get_submodule(parent), attribute, Quantized(layer, name))
