"""MobileNetV2 (Sandler et al. 2018, arXiv 1801.04381, Table 2) as in torchvision, with its parameter names."""

from __future__ import annotations

from mbbench.models.trace import Map, Trace
from mbbench.spec import ModelSpec

# Each row: expansion factor, output channels at width multiplier 1, number of blocks, stride of the first block.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
STEM, LAST = 32, 1280  # output channels of the first and the last convolution at width multiplier 1
_MULTIPLE = 8  # every number of channels is a multiple of it


def scale_channels(channels: float) -> int:
    """Return the multiple of 8 nearest to `channels`, but at least 8 and not less than nine tenths of `channels`."""
    rounded = max(_MULTIPLE, int(channels + _MULTIPLE / 2) // _MULTIPLE * _MULTIPLE)
    return rounded + _MULTIPLE if rounded < 0.9 * channels else rounded


def last_width(alpha: float) -> int:
    """Return the output channels of the last convolution, which no width multiplier below 1 narrows."""
    return scale_channels(LAST * max(1.0, alpha))


def trace(spec: ModelSpec, net: Trace) -> None:
    """List the layers of the network."""
    x = net.convolution(net.image, "features.0.0", scale_channels(STEM * spec.alpha), 3, 2)
    index = 1
    for expansion, channels, blocks, stride in STAGES:
        for number in range(blocks):
            outputs = scale_channels(channels * spec.alpha)
            x = _block(net, x, f"features.{index}.conv", expansion, outputs, stride if number == 0 else 1)
            index += 1
    x = net.convolution(x, f"features.{index}.0", last_width(spec.alpha))
    net.linear(net.pool_to(x, 1), "classifier.1", spec.classes)


def _block(net: Trace, x: Map, name: str, expansion: int, outputs: int, stride: int) -> Map:
    """List the layers of an inverted residual block."""
    width = x.shape[0] * expansion
    first = 1 if expansion > 1 else 0
    y = net.convolution(x, f"{name}.0.0", width) if expansion > 1 else x
    y = net.convolution(y, f"{name}.{first}.0", width, 3, stride, groups=width)
    y = net.convolution(y, f"{name}.{first + 1}", outputs)
    return net.add(x, y) if y.shape == x.shape else y
