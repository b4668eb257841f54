"""GoogLeNet (Szegedy et al. 2014, arXiv 1409.4842, Table 1) as in torchvision, with torchvision's parameter names.

It differs from the paper's network: it has batch norm instead of local response normalization, and 3x3 convolutions
instead of 5x5, which the variant `5x5` restores. The auxiliary heads, which are used only in training, are left out.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mbbench.spec import ModelSpec

# Channels of each inception module, named after the paper's columns: input, 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5 (a
# 3x3 convolution in the standard variant), pool projection.
_STAGE3 = {"inception3a": (192, 64, 96, 128, 16, 32, 32), "inception3b": (256, 128, 128, 192, 32, 96, 64)}
_STAGE4 = {
    "inception4a": (480, 192, 96, 208, 16, 48, 64),
    "inception4b": (512, 160, 112, 224, 24, 64, 64),
    "inception4c": (512, 128, 128, 256, 24, 64, 64),
    "inception4d": (512, 112, 144, 288, 32, 64, 64),
    "inception4e": (528, 256, 160, 320, 32, 128, 128),
}
_STAGE5 = {"inception5a": (832, 256, 160, 320, 32, 128, 128), "inception5b": (832, 384, 192, 384, 48, 128, 128)}


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
        kernel5 = 5 if spec.variant == "5x5" else 3
        self.conv1 = ConvBlock(3, 64, 7, stride=2)
        self.maxpool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2 = ConvBlock(64, 64, 1)
        self.conv3 = ConvBlock(64, 192, 3)
        self.maxpool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self._add(_STAGE3, kernel5)
        self.maxpool3 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self._add(_STAGE4, kernel5)
        self.maxpool4 = nn.MaxPool2d(2, 2, ceil_mode=True)
        self._add(_STAGE5, kernel5)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(1024, spec.classes)

    def _add(self, stage: dict[str, tuple[int, int, int, int, int, int, int]], kernel5: int) -> None:
        for name, channels in stage.items():
            self.add_module(name, Inception(*channels, kernel5=kernel5))

    def forward(self, x: Tensor) -> Tensor:
        # The children are registered in the order in which they run.
        for name, layer in self.named_children():
            x = layer(x).flatten(1) if name == "avgpool" else layer(x)
        return x
