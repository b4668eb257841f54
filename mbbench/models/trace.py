"""Counting a network while its layers are listed: shapes, Mult-Adds, parameters and live activations; no PyTorch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mbbench.models.cost import FP32_BYTES, Cost, Layer
from mbbench.spec import Size


@dataclass(frozen=True, slots=True)
class Map:
    """An activation: channels, height, width, and the memory that holds it."""

    shape: tuple[int, int, int]
    buffer: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


class Trace:
    """A network that is counted layer by layer, in the order in which the layers run.

    An operator reads maps and returns a new one. Batch norm is folded into its convolution, and an activation works in
    place, so that neither has an operator. `cost` is complete when the last layer was listed.
    """

    def __init__(self, size: Size) -> None:
        self._layers: list[Layer] = []
        self._sizes: list[int] = []  # elements of each buffer
        self._lives: list[list[int]] = []  # the first and the last step at which each buffer is used
        self._steps = 0
        self.image = self._new((3, *size))

    @property
    def cost(self) -> Cost:
        alive = [0] * self._steps
        for size, (first, last) in zip(self._sizes, self._lives, strict=True):
            for step in range(first, last + 1):
                alive[step] += size * FP32_BYTES
        return Cost(tuple(self._layers), max(alive))

    def convolution(
        self,
        x: Map,
        name: str,
        outputs: int,
        kernel: int | tuple[int, int] = 1,
        stride: int = 1,
        padding: int | tuple[int, int] | tuple[int, int, int, int] | None = None,
        *,
        groups: int = 1,
        norm: bool = True,
        bias: bool = False,
    ) -> Map:
        """Add a convolution; `norm`: with batch norm.

        `kernel` is its side, or its height and width. `padding` is that of each side, of height and width, or (left,
        right, top, bottom), which is a step of its own; by default it keeps the size at stride 1.
        """
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        if padding is None:
            padding = (height // 2, width // 2)
        elif isinstance(padding, int):
            padding = (padding, padding)
        if len(padding) == 4:
            left, right, top, bottom = padding
            channels, rows, columns = x.shape
            x = self._operator([x], (channels, rows + top + bottom, columns + left + right))
            padding = (0, 0)
        side = (_windows(x.shape[1], height, stride, padding[0]), _windows(x.shape[2], width, stride, padding[1]))
        weights = height * width * x.shape[0] // groups * outputs
        parameters = weights + 2 * outputs * norm + outputs * bias
        size = f"{height}x{width}"
        kind = f"Conv DW {size}" if groups == x.shape[0] > 1 else f"Conv {size}"
        shape = (outputs, *side)
        self._layers.append(Layer(name, kind, shape, weights * math.prod(side), weights, parameters, x.elements))
        return self._operator([x], shape)

    def linear(self, x: Map, name: str, outputs: int) -> Map:
        """Add a fully connected layer with a bias; it reads the flattened map."""
        weights = x.elements * outputs
        self._layers.append(Layer(name, "Fully connected", (outputs,), weights, weights, weights + outputs, x.elements))
        return self._operator([x], (outputs, 1, 1))

    def pool(self, x: Map, kernel: int, stride: int, padding: int = 0, *, ceil: bool = False) -> Map:
        """Add a maximum or average pooling; `ceil`: the last window may end past the edge."""
        side = [_windows(size, kernel, stride, padding, ceil=ceil) for size in x.shape[1:]]
        return self._operator([x], (x.shape[0], side[0], side[1]))

    def pool_to(self, x: Map, grid: int) -> Map:
        """Add an adaptive average pooling to (channels, grid, grid), rows first; nothing if the map is that large."""
        if x.shape[1:] == (grid, grid):
            return x
        rows = self._operator([x], (x.shape[0], grid, x.shape[2])) if grid > 1 else x
        return self._operator([rows], (x.shape[0], grid, grid))

    def concatenate(self, maps: Sequence[Map]) -> Map:
        """Add a concatenation along the channels."""
        return self._operator(maps, (sum(part.shape[0] for part in maps), *maps[0].shape[1:]))

    def add(self, x: Map, y: Map) -> Map:
        """Add a sum of two maps of the same shape."""
        return self._operator([x, y], x.shape)

    def activate(self, x: Map) -> Map:
        """Add an activation whose input is read again later, and which therefore does not work in place."""
        return self._operator([x], x.shape)

    def _operator(self, inputs: Sequence[Map], shape: tuple[int, int, int]) -> Map:
        for x in inputs:
            self._lives[x.buffer][1] = self._steps
        output = self._new(shape)
        self._steps += 1
        return output

    def _new(self, shape: tuple[int, int, int]) -> Map:
        self._sizes.append(math.prod(shape))
        self._lives.append([self._steps, self._steps])
        return Map(shape, len(self._sizes) - 1)


def _windows(size: int, kernel: int, stride: int, padding: int, *, ceil: bool = False) -> int:
    """Return how many windows fit. With `ceil`, the last one may end past the edge, but must begin before it."""
    span = size + 2 * padding - kernel
    if not ceil:
        return span // stride + 1
    count = -(-span // stride) + 1
    return count - 1 if (count - 1) * stride >= size + padding else count
