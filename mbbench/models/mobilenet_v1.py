"""MobileNetV1 (Howard et al. 2017, arXiv 1704.04861, Table 1) and its variants in Tables 4 and 5."""

from __future__ import annotations

from mbbench.errors import UsageError
from mbbench.models.trace import Trace
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
_MAX_WIDTH = 2**16  # channels; eight times what the largest alpha has
EPSILON = 1e-3  # of batch norm, as in Keras
KERAS_PAD = (0, 1, 0, 1)  # Keras pads with ZeroPadding2D(((0, 1), (0, 1))) before a depthwise convolution of stride 2
_REMOVED_IN_SHALLOW = slice(6, 11)  # the five 14x14x512 blocks that Table 5 leaves out


def scale_channels(channels: int, alpha: float) -> int:
    """Return `channels` times width multiplier `alpha`, rounded down and at least 8, as in TF-slim.

    Keras has no minimum of 8.
    """
    return max(int(channels * alpha), 8)


def blocks(spec: ModelSpec) -> list[tuple[int, int]]:
    """Return the output channels at width multiplier 1 and the stride of each block."""
    table = [*_BLOCKS]
    if spec.variant == "shallow":
        del table[_REMOVED_IN_SHALLOW]
    return table


def table_widths(spec: ModelSpec) -> tuple[int, ...]:
    """Return the output channels of the stem and of each block, from the paper's table and `spec.alpha`."""
    return tuple(
        scale_channels(channels, spec.alpha) for channels in (_STEM, *(outputs for outputs, _ in blocks(spec)))
    )


def widths(spec: ModelSpec) -> tuple[int, ...]:
    """Return the output channels of the stem and of each block. Raises `UsageError` if `spec.widths` is wrong."""
    expected = len(blocks(spec)) + 1
    if spec.widths and len(spec.widths) != expected:
        raise UsageError(
            f"the number of widths must be {expected}: {len(spec.widths)}",
            "give one width for the stem and one for each block",
        )
    if spec.widths and not all(1 <= width <= _MAX_WIDTH for width in spec.widths):
        raise UsageError(
            f"a width is not 1 to {_MAX_WIDTH}: {min(spec.widths)} to {max(spec.widths)}", "give another checkpoint"
        )
    return spec.widths or table_widths(spec)


def stem_pad(spec: ModelSpec) -> tuple[int, int, int, int] | None:
    """Return the stem's padding (left, right, top, bottom) in Keras: one pixel more if the resolution is odd."""
    before = spec.resolution % 2
    return (before, 1, before, 1) if spec.padding == "keras" else None


def trace(spec: ModelSpec, net: Trace) -> None:
    """List the layers of the network."""
    outputs = widths(spec)
    x = net.convolution(net.image, "stem.conv", outputs[0], 3, 2, stem_pad(spec))
    for index, ((_, stride), width) in enumerate(zip(blocks(spec), outputs[1:], strict=True)):
        pad = KERAS_PAD if spec.padding == "keras" and stride == 2 else None
        if spec.variant == "full-conv":
            x = net.convolution(x, f"blocks.{index}.conv", width, 3, stride, pad)
        else:
            x = net.convolution(x, f"blocks.{index}.0.conv", x.shape[0], 3, stride, pad, groups=x.shape[0])
            x = net.convolution(x, f"blocks.{index}.1.conv", width)
    net.linear(net.pool_to(x, 1), "classifier", spec.classes)
