"""MobileNetV2 as a PyTorch module, with torchvision's parameter names."""

from __future__ import annotations

from torch import Tensor, nn

from mbbench.models.mobilenet_v2 import STAGES, STEM, last_width, scale_channels
from mbbench.spec import ModelSpec


class ConvBlock(nn.Sequential):
    """Convolution, batch norm, ReLU6."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU6(inplace=True),
        )


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise 3x3 convolution and a linear 1x1 projection, added to the input if the shapes agree."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        self.adds = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            *([ConvBlock(inputs, width, 1)] if expansion > 1 else []),
            ConvBlock(width, width, 3, stride, groups=width),
            nn.Conv2d(width, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.adds else self.conv(x)  # type: ignore[no-any-return]


class MobileNetV2(nn.Module):
    """MobileNetV2: images (N, 3, R, R), R at least 32, to logits (N, classes)."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        width = scale_channels(STEM * spec.alpha)
        layers: list[nn.Module] = [ConvBlock(3, width, 3, stride=2)]
        for expansion, channels, blocks, stride in STAGES:
            outputs = scale_channels(channels * spec.alpha)
            for index in range(blocks):
                layers.append(InvertedResidual(width, outputs, stride if index == 0 else 1, expansion))
                width = outputs
        last = last_width(spec.alpha)
        self.features = nn.Sequential(*layers, ConvBlock(width, last, 1))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(last, spec.classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.pool(self.features(x)).flatten(1))  # type: ignore[no-any-return]
