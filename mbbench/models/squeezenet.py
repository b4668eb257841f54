"""SqueezeNet 1.0 and 1.1 (Iandola et al. 2016, arXiv 1602.07360) as in torchvision, with its parameter names."""

from __future__ import annotations

from collections.abc import Mapping

from mbbench.models.trace import Trace
from mbbench.spec import ModelSpec

# Channels of a fire module: squeeze, and each of the two expansions. None is a max pooling of stride 2.
_FIRE2_TO_9 = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))
# Channels and kernel of the first convolution, and the layers after it.
TABLE: Mapping[str, tuple[int, int, tuple[tuple[int, int] | None, ...]]] = {
    "squeezenet1_0": (96, 7, (None, *_FIRE2_TO_9[:3], None, *_FIRE2_TO_9[3:7], None, _FIRE2_TO_9[7])),
    "squeezenet1_1": (64, 3, (None, *_FIRE2_TO_9[:2], None, *_FIRE2_TO_9[2:4], None, *_FIRE2_TO_9[4:])),
}


def trace(spec: ModelSpec, net: Trace) -> None:
    """List the layers of the network."""
    width, kernel, table = TABLE[spec.family]
    x = net.convolution(net.image, "features.0", width, kernel, 2, 0, norm=False, bias=True)
    for index, row in enumerate(table, 2):
        if row is None:
            x = net.pool(x, 3, 2, ceil=True)
            continue
        squeezed, expanded = row
        x = net.convolution(x, f"features.{index}.squeeze", squeezed, norm=False, bias=True)
        parts = [
            net.convolution(x, f"features.{index}.expand{side}x{side}", expanded, side, norm=False, bias=True)
            for side in (1, 3)
        ]
        x = net.concatenate(parts)
    net.pool_to(net.convolution(x, "classifier.1", spec.classes, norm=False, bias=True), 1)
