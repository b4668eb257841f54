"""Cross-layer equalization under ReLU6: scale every channel to fill the range that its tensor's single scale covers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mbbench.models.mobilenet_v1 import ConvBlock

_CEILING = 6.0  # of ReLU6
_MARGIN = 1.1  # headroom above the largest activation seen
_MAX_SCALE = 32.0
_BATCH = 16


def equalize(module: nn.Module, images: Tensor) -> nn.Module:
    """Return a copy of a folded MobileNetV1 with the same logits and pointwise outputs scaled up to ReLU6's ceiling.

    Nagel et al. 2019 (arXiv 1906.04721, section 4.1) scale the weights that produce a channel, divide the weights that
    consume it, and replace ReLU6 by ReLU. ReLU6 stays here: on the published ImageNet checkpoint, ReLU alone leaves
    33 % top-1 agreement. Instead, channels that `images` (N, 3, H, W) never drive to the ceiling are scaled up until
    they nearly reach it. Only pointwise layers before depthwise layers take part: both have one weight scale per output
    channel, so that scaling costs their weights no precision.
    """
    import copy

    import torch

    equalized = copy.deepcopy(module).eval()
    blocks = conv_blocks(equalized)
    peaks: list[Tensor] = [torch.zeros(1) for _ in blocks]

    def record_peak(index: int) -> object:
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            peaks[index] = torch.maximum(peaks[index], output.amax(dim=(0, 2, 3)))

        return hook

    handles = [
        block.register_forward_hook(record_peak(index))  # type: ignore[arg-type]
        for index, block in enumerate(blocks)
    ]
    with torch.no_grad():
        for start in range(0, len(images), _BATCH):
            equalized(images[start : start + _BATCH])
        for handle in handles:
            handle.remove()
        for block, peak, following in zip(blocks, peaks, blocks[1:], strict=False):
            if following.conv.groups == 1:
                continue
            assert block.conv.bias is not None
            scale = (_CEILING / (peak * _MARGIN).clamp(min=1e-6)).clamp(1.0, _MAX_SCALE)
            block.conv.weight *= scale[:, None, None, None]
            block.conv.bias *= scale
            following.conv.weight /= scale[:, None, None, None]
    return equalized


def conv_blocks(module: nn.Module) -> list[ConvBlock]:
    """Return MobileNetV1's convolution blocks in order, each feeding the next; an empty list for another network."""
    from mbbench.models.mobilenet_v1 import ConvBlock, MobileNetV1

    return [m for m in module.modules() if isinstance(m, ConvBlock)] if isinstance(module, MobileNetV1) else []
