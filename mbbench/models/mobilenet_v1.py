"""MobileNetV1 (Howard et al. 2017, arXiv 1704.04861, Table 1) and its variants in Tables 4 and 5."""

from __future__ import annotations

from torch import Tensor, nn

from mbbench.errors import UsageError
from mbbench.spec import ModelSpec

# Output channels at width multiplier 1 and stride of each depthwise separable block.
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
_STEM = 32  # output channels of the first convolution at width multiplier 1
EPSILON = 1e-3  # of batch norm, as in Keras
_KERAS_PAD = (0, 1, 0, 1)  # Keras pads with ZeroPadding2D(((0, 1), (0, 1))) before a depthwise convolution of stride 2
_REMOVED_IN_SHALLOW = slice(6, 11)  # the five 14x14x512 blocks that Table 5 leaves out


def scale_channels(channels: int, alpha: float) -> int:
    """Return `channels` times width multiplier `alpha`, rounded down and at least 8, as in TF-slim.

    Keras has no minimum of 8.
    """
    return max(int(channels * alpha), 8)


def _blocks(spec: ModelSpec) -> list[tuple[int, int]]:
    blocks = [*_BLOCKS]
    if spec.variant == "shallow":
        del blocks[_REMOVED_IN_SHALLOW]
    return blocks


def table_widths(spec: ModelSpec) -> tuple[int, ...]:
    """Return the output channels of the stem and of each block, from the paper's table and `spec.alpha`."""
    return tuple(
        scale_channels(channels, spec.alpha) for channels in (_STEM, *(outputs for outputs, _ in _blocks(spec)))
    )


def table_strides(spec: ModelSpec) -> tuple[int, ...]:
    """Return the stride of each block, from the paper's table."""
    return tuple(stride for _, stride in _blocks(spec))


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
        table = _blocks(spec)
        widths = spec.widths or table_widths(spec)
        if len(widths) != len(table) + 1:
            raise UsageError(
                f"the number of widths must be {len(table) + 1}: {len(widths)}",
                "give one width for the stem and one for each block",
            )
        width = widths[0]
        keras = spec.padding == "keras"
        # The stem's padding in Keras is "same": one more pixel on the left and top if the resolution is odd.
        before = spec.resolution % 2
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
