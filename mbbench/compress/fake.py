"""What 8 bits make of a number, in PyTorch: the arithmetic that the runtimes' integer kernels come to."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from mbbench.compress.calibrate import Range

LARGEST = 127  # int8 weights are symmetric: -127 to 127
_LEVELS = 255


def weights(values: Tensor, largest: int = LARGEST) -> Tensor:
    """Weights (O, ...) as integers up to `largest` with a scale for each output channel represent them.

    Gradients pass through.
    """
    import torch

    scale = values.detach().abs().amax(dim=tuple(range(1, values.ndim))) / largest
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    zero = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(values, scale, zero, 0, -largest, largest)


def activations(values: Tensor, limits: Range) -> Tensor:
    """Activations as uint8 with a zero point covers `limits`, widened to hold zero; gradients pass unless clipped."""
    import torch

    low, high = min(limits[0], 0.0), max(limits[1], 0.0)
    scale = (high - low) / _LEVELS or 1.0
    return torch.fake_quantize_per_tensor_affine(values, scale, round(-low / scale), 0, _LEVELS)
