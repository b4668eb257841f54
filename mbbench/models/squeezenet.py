"""SqueezeNet 1.0 and 1.1 (Iandola et al. 2016, arXiv 1602.07360) as in torchvision, with its parameter names."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mbbench.spec import ModelSpec

# Channels of a fire module: squeeze, and each of the two expansions. None is a max pooling of stride 2.
_FIRE2_TO_9 = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))
# Channels and kernel of the first convolution, and the layers after it.
_TABLE: Mapping[str, tuple[int, int, tuple[tuple[int, int] | None, ...]]] = {
    "squeezenet1_0": (96, 7, (None, *_FIRE2_TO_9[:3], None, *_FIRE2_TO_9[3:7], None, _FIRE2_TO_9[7])),
    "squeezenet1_1": (64, 3, (None, *_FIRE2_TO_9[:2], None, *_FIRE2_TO_9[2:4], None, *_FIRE2_TO_9[4:])),
}


class Fire(nn.Module):
    """A 1x1 convolution that squeezes the channels, then a 1x1 and a 3x3 convolution whose outputs are concatenated."""

    def __init__(self, inputs: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.squeeze_act = nn.ReLU(inplace=True)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand1x1_act = nn.ReLU(inplace=True)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)
        self.expand3x3_act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze_act(self.squeeze(x))
        return torch.cat([self.expand1x1_act(self.expand1x1(x)), self.expand3x3_act(self.expand3x3(x))], 1)


class SqueezeNet(nn.Module):
    """SqueezeNet: images (N, 3, R, R), R at least 32, to logits (N, classes), which are never negative."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        width, kernel, table = _TABLE[spec.family]
        layers: list[nn.Module] = [nn.Conv2d(3, width, kernel, stride=2), nn.ReLU(inplace=True)]
        for row in table:
            if row is None:
                layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
            else:
                squeezed, expanded = row
                layers.append(Fire(width, squeezed, expanded))
                width = 2 * expanded
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Dropout(), nn.Conv2d(width, spec.classes, 1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x)).flatten(1)  # type: ignore[no-any-return]
