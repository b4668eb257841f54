"""Xception (Chollet 2017, arXiv 1610.02357, Figure 5) as in Keras, with timm's parameter names (`legacy_xception`)."""

from __future__ import annotations

from mbbench.models.trace import Map, Trace
from mbbench.spec import ModelSpec

# Output channels of each separable convolution of a block, and whether the block halves the resolution. The first block
# has no leading ReLU.
BLOCKS = (
    ((128, 128), True),
    ((256, 256), True),
    ((728, 728), True),
    *(((728, 728, 728), False),) * 8,
    ((728, 1024), True),
)
STEM = (32, 64)
EXIT = (1536, 2048)
EPSILON = 1e-5  # of batch norm, as in timm; Keras has 1e-3


def trace(spec: ModelSpec, net: Trace) -> None:
    """List the layers of the network."""
    first, width = STEM
    x = net.convolution(net.image, "conv1", first, 3, 2, 0)
    x = net.convolution(x, "conv2", width, 3, 1, 0)
    keras = spec.padding == "keras"
    for number, (table, halves) in enumerate(BLOCKS, 1):
        name, y = f"block{number}", x
        for index, channels in enumerate(table):
            y = net.activate(y) if index == 0 and number > 1 else y
            position = 3 * index + (1 if number > 1 else 0)  # after a ReLU; each has a batch norm and a ReLU behind it
            y = _separable(net, y, f"{name}.rep.{position}", channels)
        if halves:
            y = net.pool(y, 3, 2, x.shape[1] % 2 if keras else 1, ceil=keras)
            x = net.convolution(x, f"{name}.skip", table[-1], 1, 2)
        x = net.add(y, x)
    for number, channels in enumerate(EXIT, 3):
        x = _separable(net, x, f"conv{number}", channels)
    net.linear(net.pool_to(x, 1), "fc", spec.classes)


def _separable(net: Trace, x: Map, name: str, outputs: int) -> Map:
    """List a depthwise convolution without batch norm, and a 1x1 convolution."""
    x = net.convolution(x, f"{name}.conv1", x.shape[0], 3, groups=x.shape[0], norm=False)
    return net.convolution(x, f"{name}.pointwise", outputs)
