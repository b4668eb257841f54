"""Xception as a PyTorch module, with timm's parameter names."""

from __future__ import annotations

from torch import Tensor, nn

from mbbench.models.xception import BLOCKS, EPSILON, EXIT, STEM
from mbbench.spec import ModelSpec


class SeparableConv(nn.Module):
    """Depthwise 3x3 convolution, then a 1x1 convolution; nothing between them."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.conv1(x))  # type: ignore[no-any-return]


class Block(nn.Module):
    """ReLU, separable convolution and batch norm, two or three times, added to the input.

    With `pool`, a max pooling ends the block, and a 1x1 convolution of stride 2 adapts the input.
    """

    def __init__(self, inputs: int, table: tuple[int, ...], pool: nn.Module | None, *, leading_relu: bool) -> None:
        super().__init__()
        outputs = table[-1]
        self.skip = nn.Identity() if pool is None else nn.Conv2d(inputs, outputs, 1, 2, bias=False)
        self.skipbn = nn.Identity() if pool is None else nn.BatchNorm2d(outputs, EPSILON)
        layers: list[nn.Module] = []
        width = inputs
        for index, channels in enumerate(table):
            if index > 0 or leading_relu:
                layers.append(nn.ReLU(inplace=index > 0))  # the first reads the block's input, which is added later
            layers += [SeparableConv(width, channels), nn.BatchNorm2d(channels, EPSILON)]
            width = channels
        self.rep = nn.Sequential(*layers, *([] if pool is None else [pool]))

    def forward(self, x: Tensor) -> Tensor:
        return self.rep(x) + self.skipbn(self.skip(x))  # type: ignore[no-any-return]


class Xception(nn.Module):
    """Xception: images (N, 3, R, R), R at least 32, to logits (N, classes).

    With Keras's padding, R must be the resolution of the spec.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        first, width = STEM
        self.conv1 = nn.Conv2d(3, first, 3, stride=2, bias=False)
        self.bn1 = nn.BatchNorm2d(first, EPSILON)
        self.act1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(first, width, 3, bias=False)
        self.bn2 = nn.BatchNorm2d(width, EPSILON)
        self.act2 = nn.ReLU(inplace=True)
        keras = spec.padding == "keras"
        size = (spec.resolution - 1) // 2 - 2
        for number, (table, halves) in enumerate(BLOCKS, 1):
            pool = None
            if halves:
                # "Same" padding in Keras: one pixel all round if the size is odd, else on the right and bottom only,
                # where ceil_mode lets the last window end.
                pool = nn.MaxPool2d(3, 2, size % 2 if keras else 1, ceil_mode=keras)
                size = (size + 1) // 2
            self.add_module(f"block{number}", Block(width, table, pool, leading_relu=number > 1))
            width = table[-1]
        third, last = EXIT
        self.conv3 = SeparableConv(width, third)
        self.bn3 = nn.BatchNorm2d(third, EPSILON)
        self.act3 = nn.ReLU(inplace=True)
        self.conv4 = SeparableConv(third, last)
        self.bn4 = nn.BatchNorm2d(last, EPSILON)
        self.act4 = nn.ReLU(inplace=True)
        self.global_pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(last, spec.classes)

    def forward(self, x: Tensor) -> Tensor:
        # The children are registered in the order in which they run.
        for name, layer in self.named_children():
            x = layer(x).flatten(1) if name == "global_pool" else layer(x)
        return x
