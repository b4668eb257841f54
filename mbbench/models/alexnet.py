"""AlexNet as in torchvision (Krizhevsky 2014, arXiv 1404.5997), with torchvision's parameter names.

The variant `grouped` has the channels and the two groups of the original network (Krizhevsky et al. 2012), which ran
on two GPUs. Local response normalization is left out, as in torchvision.
"""

from __future__ import annotations

from mbbench.models.trace import Trace
from mbbench.models.vgg16 import HIDDEN
from mbbench.spec import ModelSpec

# Output channels, kernel, stride, padding and groups of each convolution, and whether a max pooling follows.
_STANDARD = (
    (64, 11, 4, 2, 1, True),
    (192, 5, 1, 2, 1, True),
    (384, 3, 1, 1, 1, False),
    (256, 3, 1, 1, 1, False),
    (256, 3, 1, 1, 1, True),
)
_GROUPED = (
    (96, 11, 4, 2, 1, True),
    (256, 5, 1, 2, 2, True),
    (384, 3, 1, 1, 1, False),
    (384, 3, 1, 1, 2, False),
    (256, 3, 1, 1, 2, True),
)
GRID = 6  # height and width of the input of the first fully connected layer


def table(spec: ModelSpec) -> tuple[tuple[int, int, int, int, int, bool], ...]:
    """Return the row of each convolution."""
    return _GROUPED if spec.variant == "grouped" else _STANDARD


def trace(spec: ModelSpec, net: Trace) -> None:
    """List the layers of the network."""
    x, index = net.image, 0
    for outputs, kernel, stride, padding, groups, pooled in table(spec):
        name = f"features.{index}"
        x = net.convolution(x, name, outputs, kernel, stride, padding, groups=groups, norm=False, bias=True)
        x = net.pool(x, 3, 2) if pooled else x
        index += 3 if pooled else 2  # with its ReLU
    x = net.pool_to(x, GRID)
    for number, outputs in ((1, HIDDEN), (4, HIDDEN), (6, spec.classes)):
        x = net.linear(x, f"classifier.{number}", outputs)
