"""MobileNetV1 (Howard et al. 2017, arXiv 1704.04861, Table 1), and its variants of Tables 4 and 5."""

from __future__ import annotations

from torch import Tensor, nn

from mbbench.errors import UsageError
from mbbench.spec import ModelSpec

# Output channels at alpha 1 and stride of each depthwise separable block.
_BLOCKS = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *((512, 1),) * 5,
    (1024, 2),
    (1024, 1),
)
_STEM = 32
EPSILON = 1e-3  # Keras's
_KERAS_PAD = (0, 1, 0, 1)  # Keras's ZeroPadding2D(((0, 1), (0, 1))) before a depthwise convolution of stride 2
_SHALLOW = slice(6, 11)  # the five 14x14x512 blocks that Table 5 removes


def scaled(channels: int, alpha: float) -> int:
    """Channels at width multiplier `alpha`: rounded down, at least 8, as in TF-slim (Keras has no floor of 8)."""
    return max(int(channels * alpha), 8)


def _table(spec: ModelSpec) -> list[tuple[int, int]]:
    table = [*_BLOCKS]
    if spec.variant == "shallow":
        del table[_SHALLOW]
    return table


def table_widths(spec: ModelSpec) -> tuple[int, ...]:
    """The output channels of the stem and of each block that the paper's table and `spec.alpha` give."""
    return tuple(scaled(channels, spec.alpha) for channels in (_STEM, *(channels for channels, _ in _table(spec))))


class ConvBlock(nn.Module):
    """Convolution, batch norm, ReLU6. Padding is symmetric unless `pad` says (left, right, top, bottom)."""

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
    """Logits (N, classes) of images (N, 3, R, R), any R of at least 32."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        table = _table(spec)
        widths = spec.widths or table_widths(spec)
        if len(widths) != len(table) + 1:
            raise UsageError(f"{len(widths)} widths for {len(table) + 1} layers", "give one of the stem and each block")
        width = widths[0]
        keras = spec.padding == "keras"
        before = spec.resolution % 2  # the stem's is "same": one more on the left and top where the size is odd
        self.stem = ConvBlock(3, width, 3, stride=2, pad=(before, 1, before, 1) if keras else None)
        blocks: list[nn.Module] = []
        for (_, stride), outputs in zip(table, widths[1:], strict=True):
            pad = _KERAS_PAD if keras and stride == 2 else None
            if spec.variant == "full-conv":
                blocks.append(ConvBlock(width, outputs, 3, stride, pad=pad))
            else:
                blocks.append(
                    nn.Sequential(
                        ConvBlock(width, width, 3, stride, depthwise=True, pad=pad),
                        ConvBlock(width, outputs, 1),
                    )
                )
            width = outputs
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(width, spec.classes)

    def forward(self, x: Tensor) -> Tensor:
        features = self.pool(self.blocks(self.stem(x))).flatten(1)
        return self.classifier(features)  # type: ignore[no-any-return]
