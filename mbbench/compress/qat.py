"""Quantization-aware fine-tuning: while the network trains, its layers round weights and inputs to 8 bits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mbbench.compress import fake

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mbbench.compress.calibrate import Range


@contextmanager
def fake_quantized(folded: nn.Module, inputs: Mapping[str, Range]) -> Iterator[None]:
    """Round weights and inputs of every convolution and fully connected layer of `folded` within the block.

    Follows Jacob et al. 2018 (arXiv 1712.05877, section 3), but with the ranges of a calibration held fixed; gradients
    pass straight through the rounding. `inputs` maps each layer's name to the range of its input. After the block the
    weights are the trained ones, not rounded.
    """
    from torch import nn
    from torch.nn.utils import parametrize

    class RoundedWeight(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return fake.weights(weight)

    def round_input(limits: Range) -> Any:
        return lambda _, arguments: (fake.activations(arguments[0], limits),)

    layers = [(name, layer) for name, layer in folded.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    handles = []
    for name, layer in layers:
        handles.append(layer.register_forward_pre_hook(round_input(inputs[name])))
        parametrize.register_parametrization(layer, "weight", RoundedWeight())
    try:
        yield
    finally:
        for handle, (_, layer) in zip(handles, layers, strict=True):
            handle.remove()
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)


def unfold(folded: nn.Module, module: nn.Module) -> dict[str, Tensor]:
    """Return a state of `module`, a network with batch norm, that computes what `folded`, its folded form, computes.

    Each batch norm becomes the identity plus the convolution's bias.
    """
    import copy

    import torch
    from torch import nn

    unfolded = copy.deepcopy(module)
    state = folded.state_dict()
    with torch.no_grad():
        for name, parent in unfolded.named_modules():
            conv, bn = getattr(parent, "conv", None), getattr(parent, "bn", None)
            if isinstance(conv, nn.Conv2d) and isinstance(bn, nn.BatchNorm2d):
                assert bn.running_mean is not None and bn.running_var is not None
                conv.weight.copy_(state[f"{name}.conv.weight"])
                bn.running_mean.zero_()
                bn.running_var.fill_(1.0)
                bn.weight.fill_((1.0 + bn.eps) ** 0.5)
                bn.bias.copy_(state[f"{name}.conv.bias"])
            elif isinstance(parent, nn.Linear):
                parent.weight.copy_(state[f"{name}.weight"])
                parent.bias.copy_(state[f"{name}.bias"])
    return unfolded.state_dict()
