"""SqueezeNet 1.0 and 1.1 as a PyTorch module, with torchvision's parameter names."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mbbench.models.squeezenet import TABLE
from mbbench.spec import ModelSpec


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
        width, kernel, table = TABLE[spec.family]
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
