"""Fake quantization: round floating-point tensors in PyTorch to the values that 8-bit integer kernels compute with."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from mbbench.compress.calibrate import Range

QUANT_MAX = 127  # int8 weights are symmetric: -127 to 127
_UINT8_MAX = 255


def weights(values: Tensor, quant_max: int = QUANT_MAX) -> Tensor:
    """Return weights (O, ...) rounded to integers from -`quant_max` to `quant_max` times a scale per output channel.

    Gradients pass through.
    """
    import torch

    scale = values.detach().abs().amax(dim=tuple(range(1, values.ndim))) / quant_max
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    zero = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(values, scale, zero, 0, -quant_max, quant_max)


def activations(values: Tensor, limits: Range) -> Tensor:
    """Return activations rounded to uint8 with a zero point, over the range `limits`, widened to hold zero.

    Gradients pass except where values are clipped.
    """
    import torch

    low, high = min(limits[0], 0.0), max(limits[1], 0.0)
    scale = (high - low) / _UINT8_MAX or 1.0
    return torch.fake_quantize_per_tensor_affine(values, scale, round(-low / scale), 0, _UINT8_MAX)
