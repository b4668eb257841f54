"""The layers of any MobileNetV1, by arithmetic on the paper's table: thousands of networks in an instant."""

from __future__ import annotations

from collections.abc import Iterator

from mbbench.models.cost import Layer
from mbbench.models.mobilenet_v1 import table_strides, table_widths
from mbbench.spec import ModelSpec

STEM, DEPTHWISE, POINTWISE, CLASSIFIER = "Conv 3x3", "Conv DW 3x3", "Conv 1x1", "Fully connected"
_TAPS = 9  # of a 3x3 kernel


def layers(spec: ModelSpec) -> tuple[Layer, ...]:
    """Return what `cost_of(spec).layers` returns, without building a network. `spec` is a standard MobileNetV1."""
    return tuple(_layers(spec))


def _layers(spec: ModelSpec) -> Iterator[Layer]:
    width, *outputs = spec.widths or table_widths(spec)
    side = _halved(spec.resolution)
    yield _convolution("stem.conv", STEM, width, side, 3 * _TAPS, 3 * spec.resolution**2)
    for index, (channels, stride) in enumerate(zip(outputs, table_strides(spec), strict=True)):
        inputs = width * side**2
        side = _halved(side) if stride == 2 else side
        yield _convolution(f"blocks.{index}.0.conv", DEPTHWISE, width, side, _TAPS, inputs)
        yield _convolution(f"blocks.{index}.1.conv", POINTWISE, channels, side, width, width * side**2)
        width = channels
    weights = width * spec.classes
    yield Layer("classifier", CLASSIFIER, (spec.classes,), weights, weights, weights + spec.classes, width)


def _halved(side: int) -> int:
    """Return the side of the output of a 3x3 convolution of stride 2 with a border of one pixel."""
    return (side + 1) // 2


def _convolution(name: str, type: str, channels: int, side: int, taps: int, inputs: int) -> Layer:
    """Return a convolution without bias whose outputs need `taps` products; its batch norm scales and shifts."""
    weights = channels * taps
    return Layer(name, type, (channels, side, side), side**2 * weights, weights, weights + 2 * channels, inputs)
