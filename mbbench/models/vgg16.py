"""VGG16 (Simonyan and Zisserman 2014, arXiv 1409.1556, configuration D)."""

from __future__ import annotations

from mbbench.models.trace import Trace
from mbbench.spec import ModelSpec

# Output channels of the 3x3 convolutions of each stage. Each stage ends with 2x2 max pooling.
STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
GRID = 7  # height and width of the input of the first fully connected layer
HIDDEN = 4096  # outputs of the first two fully connected layers


def trace(spec: ModelSpec, net: Trace) -> None:
    """List the layers of the network."""
    x, index = net.image, 0
    for stage in STAGES:
        for channels in stage:
            x = net.convolution(x, f"features.{index}", channels, 3, norm=False, bias=True)
            index += 2  # with its ReLU
        x = net.pool(x, 2, 2)
        index += 1
    x = net.pool_to(x, GRID)
    for number, outputs in ((0, HIDDEN), (3, HIDDEN), (6, spec.classes)):
        x = net.linear(x, f"classifier.{number}", outputs)
