"""GoogLeNet (Szegedy et al. 2014, arXiv 1409.4842, Table 1) as in torchvision, with torchvision's parameter names.

It differs from the paper's network: it has batch norm instead of local response normalization, and 3x3 convolutions
instead of 5x5, which the variant `5x5` restores. The auxiliary heads, which are used only in training, are left out.
"""

from __future__ import annotations

from mbbench.models.trace import Map, Trace
from mbbench.spec import ModelSpec

Row = tuple[int, int, int, int, int, int, int]
# Channels of each inception module, named after the paper's columns: input, 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5 (a
# 3x3 convolution in the standard variant), pool projection.
STAGE3 = {"inception3a": (192, 64, 96, 128, 16, 32, 32), "inception3b": (256, 128, 128, 192, 32, 96, 64)}
STAGE4 = {
    "inception4a": (480, 192, 96, 208, 16, 48, 64),
    "inception4b": (512, 160, 112, 224, 24, 64, 64),
    "inception4c": (512, 128, 128, 256, 24, 64, 64),
    "inception4d": (512, 112, 144, 288, 32, 64, 64),
    "inception4e": (528, 256, 160, 320, 32, 128, 128),
}
STAGE5 = {"inception5a": (832, 256, 160, 320, 32, 128, 128), "inception5b": (832, 384, 192, 384, 48, 128, 128)}


def kernel5(spec: ModelSpec) -> int:
    """Return the side of the convolution that is 5x5 in the paper."""
    return 5 if spec.variant == "5x5" else 3


def trace(spec: ModelSpec, net: Trace) -> None:
    """List the layers of the network."""
    x = net.convolution(net.image, "conv1.conv", 64, 7, 2)
    x = net.pool(x, 3, 2, ceil=True)
    x = net.convolution(x, "conv2.conv", 64)
    x = net.pool(net.convolution(x, "conv3.conv", 192, 3), 3, 2, ceil=True)
    for stage, pooled in ((STAGE3, 3), (STAGE4, 2), (STAGE5, None)):
        for name, row in stage.items():
            x = _inception(net, x, name, row, kernel5(spec))
        x = x if pooled is None else net.pool(x, pooled, 2, ceil=True)
    net.linear(net.pool_to(x, 1), "fc", spec.classes)


def _inception(net: Trace, x: Map, name: str, row: Row, kernel: int) -> Map:
    """List the four branches of an inception module."""
    _, outputs1, reduce3, outputs3, reduce5, outputs5, pooled = row
    branch1 = net.convolution(x, f"{name}.branch1.conv", outputs1)
    branch2 = net.convolution(x, f"{name}.branch2.0.conv", reduce3)
    branch2 = net.convolution(branch2, f"{name}.branch2.1.conv", outputs3, 3)
    branch3 = net.convolution(x, f"{name}.branch3.0.conv", reduce5)
    branch3 = net.convolution(branch3, f"{name}.branch3.1.conv", outputs5, kernel)
    branch4 = net.convolution(net.pool(x, 3, 1, 1), f"{name}.branch4.1.conv", pooled)
    return net.concatenate([branch1, branch2, branch3, branch4])
