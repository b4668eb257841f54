"""GoogLeNet (Szegedy et al. 2014, arXiv 1409.4842, Table 1) as torchvision has it, with its parameter names.

torchvision's differs from the paper's: batch norm instead of local response normalization, and 3x3 convolutions where
the paper has 5x5. The auxiliary heads, which only training uses, are left out.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Per inception module: input channels, then outputs of the 1x1, of the 3x3's reduction and itself, of the "5x5"'s
# reduction and itself, and of the pooling branch's projection.
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
    """Four branches over the same input, side by side in the channels."""

    def __init__(self, inputs: int, one: int, reduce3: int, three: int, reduce5: int, five: int, pool: int) -> None:
        super().__init__()
        self.branch1 = ConvBlock(inputs, one, 1)
        self.branch2 = nn.Sequential(ConvBlock(inputs, reduce3, 1), ConvBlock(reduce3, three, 3))
        self.branch3 = nn.Sequential(ConvBlock(inputs, reduce5, 1), ConvBlock(reduce5, five, 3))
        # torchvision's ceil_mode changes nothing at stride 1, and ONNX's reference evaluator errs on it.
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1), ConvBlock(inputs, pool, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class GoogLeNet(nn.Module):
    """Logits (N, classes) of images (N, 3, R, R), any R of at least 32."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = ConvBlock(3, 64, 7, stride=2)
        self.maxpool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2 = ConvBlock(64, 64, 1)
        self.conv3 = ConvBlock(64, 192, 3)
        self.maxpool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self._add(_STAGE3)
        self.maxpool3 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self._add(_STAGE4)
        self.maxpool4 = nn.MaxPool2d(2, 2, ceil_mode=True)
        self._add(_STAGE5)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(1024, classes)

    def _add(self, stage: dict[str, tuple[int, int, int, int, int, int, int]]) -> None:
        for name, channels in stage.items():
            self.add_module(name, Inception(*channels))

    def forward(self, x: Tensor) -> Tensor:
        # The children were added in the order in which they run.
        for name, layer in self.named_children():
            x = layer(x).flatten(1) if name == "avgpool" else layer(x)
        return x
