"""GoogLeNet as a PyTorch module, with torchvision's parameter names."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mbbench.models.googlenet import STAGE3, STAGE4, STAGE5, Row, kernel5
from mbbench.spec import ModelSpec


class ConvBlock(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))  # type: ignore[no-any-return]


class Inception(nn.Module):
    """Four branches on the same input, concatenated along the channels.

    The positional parameters are numbers of channels; `outputs5` is that of the paper's 5x5 convolution, whose kernel
    here has the side `kernel5`.
    """

    def __init__(
        self,
        inputs: int,
        outputs1: int,
        reduce3: int,
        outputs3: int,
        reduce5: int,
        outputs5: int,
        pool: int,
        *,
        kernel5: int,
    ) -> None:
        super().__init__()
        self.branch1 = ConvBlock(inputs, outputs1, 1)
        self.branch2 = nn.Sequential(ConvBlock(inputs, reduce3, 1), ConvBlock(reduce3, outputs3, 3))
        self.branch3 = nn.Sequential(ConvBlock(inputs, reduce5, 1), ConvBlock(reduce5, outputs5, kernel5))
        # Without torchvision's ceil_mode, which has no effect at stride 1 and is wrong in ONNX's reference evaluator.
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1), ConvBlock(inputs, pool, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class GoogLeNet(nn.Module):
    """GoogLeNet: images (N, 3, R, R), R at least 32, to logits (N, classes)."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.conv1 = ConvBlock(3, 64, 7, stride=2)
        self.maxpool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2 = ConvBlock(64, 64, 1)
        self.conv3 = ConvBlock(64, 192, 3)
        self.maxpool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self._add(STAGE3, kernel5(spec))
        self.maxpool3 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self._add(STAGE4, kernel5(spec))
        self.maxpool4 = nn.MaxPool2d(2, 2, ceil_mode=True)
        self._add(STAGE5, kernel5(spec))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(1024, spec.classes)

    def _add(self, stage: dict[str, Row], side: int) -> None:
        for name, channels in stage.items():
            self.add_module(name, Inception(*channels, kernel5=side))

    def forward(self, x: Tensor) -> Tensor:
        # The children are registered in the order in which they run.
        for name, layer in self.named_children():
            x = layer(x).flatten(1) if name == "avgpool" else layer(x)
        return x
