"""MobileNetV1 as a PyTorch module."""

from __future__ import annotations

from torch import Tensor, nn

from mbbench.models.mobilenet_v1 import EPSILON, KERAS_PAD, blocks, stem_pad, widths
from mbbench.spec import ModelSpec


class ConvBlock(nn.Module):
    """Convolution, batch norm, ReLU6.

    Padding is symmetric unless `pad` gives it as (left, right, top, bottom).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        *,
        depthwise: bool = False,
        pad: tuple[int, int, int, int] | None = None,
    ) -> None:
        super().__init__()
        groups = inputs if depthwise else 1
        self.pad = nn.Identity() if pad is None else nn.ZeroPad2d(pad)
        symmetric = kernel // 2 if pad is None else 0
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, symmetric, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=EPSILON)
        self.act = nn.ReLU6(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(self.pad(x))))  # type: ignore[no-any-return]


class MobileNetV1(nn.Module):
    """MobileNetV1: images (N, 3, R, R), R at least 32, to logits (N, classes).

    Raises `UsageError` if `spec.widths` has the wrong length.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        width, *block_widths = widths(spec)
        self.stem = ConvBlock(3, width, 3, stride=2, pad=stem_pad(spec))
        layers: list[nn.Module] = []
        for (_, stride), outputs in zip(blocks(spec), block_widths, strict=True):
            pad = KERAS_PAD if spec.padding == "keras" and stride == 2 else None
            if spec.variant == "full-conv":
                layers.append(ConvBlock(width, outputs, 3, stride, pad=pad))
            else:
                layers.append(
                    nn.Sequential(
                        ConvBlock(width, width, 3, stride, depthwise=True, pad=pad),
                        ConvBlock(width, outputs, 1),
                    )
                )
            width = outputs
        self.blocks = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(width, spec.classes)

    def forward(self, x: Tensor) -> Tensor:
        features = self.pool(self.blocks(self.stem(x))).flatten(1)
        return self.classifier(features)  # type: ignore[no-any-return]
