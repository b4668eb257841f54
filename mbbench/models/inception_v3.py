"""Inception V3 (Szegedy et al. 2015, arXiv 1512.00567) as in torchvision, with torchvision's parameter names.

The auxiliary head, which is used only in training, is left out.
"""

from __future__ import annotations

from collections.abc import Mapping

from mbbench.models.trace import Map, Trace
from mbbench.spec import ModelSpec

# The layers before the modules: name, output channels, side of the kernel, stride, padding. None is a max pooling.
_STEM = (
    ("Conv2d_1a_3x3", 32, 3, 2, 0),
    ("Conv2d_2a_3x3", 32, 3, 1, 0),
    ("Conv2d_2b_3x3", 64, 3, 1, 1),
    None,
    ("Conv2d_3b_1x1", 80, 1, 1, 0),
    ("Conv2d_4a_3x3", 192, 3, 1, 0),
    None,
)
# A module's branches by name: the output channels and the kernel (height x width) of each convolution. Two kernels read
# the same tensor. The branch `branch_pool` begins with an average pooling.
Branches = Mapping[str, tuple[tuple[int, str], ...]]


def _grid35(pooled: int) -> Branches:
    """Return the branches of a module at 35x35, whose pooling branch has `pooled` channels."""
    return {
        "branch1x1": ((64, "1x1"),),
        "branch5x5": ((48, "1x1"), (64, "5x5")),
        "branch3x3dbl": ((64, "1x1"), (96, "3x3"), (96, "3x3")),
        "branch_pool": ((pooled, "1x1"),),
    }


def _grid17(width: int) -> Branches:
    """Return the branches of a module at 17x17 with `width` channels between its 7x1 and 1x7 convolutions."""
    column, row = (width, "7x1"), (width, "1x7")
    return {
        "branch1x1": ((192, "1x1"),),
        "branch7x7": ((width, "1x1"), row, (192, "7x1")),
        "branch7x7dbl": ((width, "1x1"), column, row, column, (192, "1x7")),
        "branch_pool": ((192, "1x1"),),
    }


_GRID8: Branches = {
    "branch1x1": ((320, "1x1"),),
    "branch3x3": ((384, "1x1"), (384, "1x3 3x1")),
    "branch3x3dbl": ((448, "1x1"), (384, "3x3"), (384, "1x3 3x1")),
    "branch_pool": ((192, "1x1"),),
}
# The modules that halve the resolution: the last convolution of each branch has stride 2; a max pooling is added.
_REDUCE35: Branches = {"branch3x3": ((384, "3x3"),), "branch3x3dbl": ((64, "1x1"), (96, "3x3"), (96, "3x3"))}
_REDUCE17: Branches = {
    "branch3x3": ((192, "1x1"), (320, "3x3")),
    "branch7x7x3": ((192, "1x1"), (192, "1x7"), (192, "7x1"), (192, "3x3")),
}
# Name -> branches, and whether the module halves the resolution.
MODULES: Mapping[str, tuple[Branches, bool]] = {
    "Mixed_5b": (_grid35(32), False),
    "Mixed_5c": (_grid35(64), False),
    "Mixed_5d": (_grid35(64), False),
    "Mixed_6a": (_REDUCE35, True),
    "Mixed_6b": (_grid17(128), False),
    "Mixed_6c": (_grid17(160), False),
    "Mixed_6d": (_grid17(160), False),
    "Mixed_6e": (_grid17(192), False),
    "Mixed_7a": (_REDUCE17, True),
    "Mixed_7b": (_GRID8, False),
    "Mixed_7c": (_GRID8, False),
}


def names(branch: str, table: tuple[tuple[int, str], ...], number: int) -> list[str]:
    """Return the names of the convolutions at step `number` (from 1) of a branch: two if they read the same tensor."""
    numbered = f"{branch}_{number}" if len(table) > 1 else branch
    kernels = table[number - 1][1].split()
    return [numbered] if len(kernels) == 1 else [f"{numbered}{letter}" for letter in "ab"]


def trace(spec: ModelSpec, net: Trace) -> None:
    """List the layers of the network."""
    x = net.image
    for row in _STEM:
        x = net.pool(x, 3, 2) if row is None else net.convolution(x, f"{row[0]}.conv", *row[1:])
    for name, (branches, halves) in MODULES.items():
        x = _module(net, x, name, branches, halves=halves)
    net.linear(net.pool_to(x, 1), "fc", spec.classes)


def _module(net: Trace, x: Map, name: str, branches: Branches, *, halves: bool) -> Map:
    """List the branches of a module on the same input; the last convolutions of one that halves have stride 2."""
    outputs: list[Map] = []
    for branch, table in branches.items():
        maps = [net.pool(x, 3, 1, 1) if branch == "branch_pool" else x]
        for number, (channels, kernels) in enumerate(table, 1):
            reduces = halves and number == len(table)
            stride, padding = (2, 0) if reduces else (1, None)
            maps = [
                net.convolution(maps[0], f"{name}.{layer}.conv", channels, side(kernel), stride, padding)
                for layer, kernel in zip(names(branch, table, number), kernels.split(), strict=True)
            ]
        outputs += maps
    return net.concatenate([*outputs, net.pool(x, 3, 2)] if halves else outputs)


def side(kernel: str) -> tuple[int, int]:
    """Return the height and width of a kernel like `1x7`."""
    height, width = map(int, kernel.split("x"))
    return height, width
