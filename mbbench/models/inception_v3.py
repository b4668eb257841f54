"""Inception V3 (Szegedy et al. 2015, arXiv 1512.00567) as in torchvision, with torchvision's parameter names.

The auxiliary head, which is used only in training, is left out.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mbbench.spec import ModelSpec

# A module's branches by name: the output channels and the kernel (height x width) of each convolution. Two kernels read
# the same tensor. The branch `branch_pool` begins with an average pooling.
_Branches = Mapping[str, tuple[tuple[int, str], ...]]


def _grid35(pooled: int) -> _Branches:
    """Return the branches of a module at 35x35, whose pooling branch has `pooled` channels."""
    return {
        "branch1x1": ((64, "1x1"),),
        "branch5x5": ((48, "1x1"), (64, "5x5")),
        "branch3x3dbl": ((64, "1x1"), (96, "3x3"), (96, "3x3")),
        "branch_pool": ((pooled, "1x1"),),
    }


def _grid17(width: int) -> _Branches:
    """Return the branches of a module at 17x17 with `width` channels between its 7x1 and 1x7 convolutions."""
    column, row = (width, "7x1"), (width, "1x7")
    return {
        "branch1x1": ((192, "1x1"),),
        "branch7x7": ((width, "1x1"), row, (192, "7x1")),
        "branch7x7dbl": ((width, "1x1"), column, row, column, (192, "1x7")),
        "branch_pool": ((192, "1x1"),),
    }


_GRID8: _Branches = {
    "branch1x1": ((320, "1x1"),),
    "branch3x3": ((384, "1x1"), (384, "1x3 3x1")),
    "branch3x3dbl": ((448, "1x1"), (384, "3x3"), (384, "1x3 3x1")),
    "branch_pool": ((192, "1x1"),),
}
# The modules that halve the resolution: the last convolution of each branch has stride 2; a max pooling is added.
_REDUCE35: _Branches = {"branch3x3": ((384, "3x3"),), "branch3x3dbl": ((64, "1x1"), (96, "3x3"), (96, "3x3"))}
_REDUCE17: _Branches = {
    "branch3x3": ((192, "1x1"), (320, "3x3")),
    "branch7x7x3": ((192, "1x1"), (192, "1x7"), (192, "7x1"), (192, "3x3")),
}
# Name -> branches, and whether the module halves the resolution.
_MODULES: Mapping[str, tuple[_Branches, bool]] = {
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


class ConvBlock(nn.Module):
    """Convolution, batch norm, ReLU. `kernel` is height x width."""

    def __init__(self, inputs: int, outputs: int, kernel: str, stride: int = 1, *, padded: bool) -> None:
        super().__init__()
        height, width = map(int, kernel.split("x"))
        padding = (height // 2, width // 2) if padded else 0
        self.conv = nn.Conv2d(inputs, outputs, (height, width), stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))  # type: ignore[no-any-return]


class Mixed(nn.Module):
    """Branches on the same input, concatenated along the channels. `outputs` is their number of channels."""

    def __init__(self, inputs: int, branches: _Branches, *, halves: bool) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(3, 2) if halves else nn.AvgPool2d(3, 1, 1)
        self._steps: list[list[list[str]]] = []  # of each branch: the names of the layers that read the same tensor
        self.outputs = inputs if halves else 0
        for branch, table in branches.items():
            width = inputs
            steps = [["pool"]] if branch == "branch_pool" else []
            for number, (channels, kernels) in enumerate(table, 1):
                last = number == len(table)
                numbered = f"{branch}_{number}" if len(table) > 1 else branch
                forks = kernels.split()
                names = [numbered] if len(forks) == 1 else [f"{numbered}{letter}" for letter in "ab"]
                for name, kernel in zip(names, forks, strict=True):
                    reduces = halves and last
                    block = ConvBlock(width, channels, kernel, 2 if reduces else 1, padded=not reduces)
                    self.add_module(name, block)
                    self.outputs += channels if last else 0
                steps.append(names)
                width = channels
            self._steps.append(steps)
        if halves:
            self._steps.append([["pool"]])

    def forward(self, x: Tensor) -> Tensor:
        outputs: list[Tensor] = []
        for steps in self._steps:
            tensors = [x]
            for names in steps:
                tensors = [self.get_submodule(name)(tensors[0]) for name in names]
            outputs += tensors
        return torch.cat(outputs, 1)


class InceptionV3(nn.Module):
    """Inception V3: images (N, 3, R, R), R at least 75, to logits (N, classes)."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = ConvBlock(3, 32, "3x3", 2, padded=False)
        self.Conv2d_2a_3x3 = ConvBlock(32, 32, "3x3", padded=False)
        self.Conv2d_2b_3x3 = ConvBlock(32, 64, "3x3", padded=True)
        self.maxpool1 = nn.MaxPool2d(3, 2)
        self.Conv2d_3b_1x1 = ConvBlock(64, 80, "1x1", padded=True)
        self.Conv2d_4a_3x3 = ConvBlock(80, 192, "3x3", padded=False)
        self.maxpool2 = nn.MaxPool2d(3, 2)
        width = 192
        for name, (branches, halves) in _MODULES.items():
            module = Mixed(width, branches, halves=halves)
            self.add_module(name, module)
            width = module.outputs
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout()
        self.fc = nn.Linear(width, spec.classes)

    def forward(self, x: Tensor) -> Tensor:
        # The children are registered in the order in which they run.
        for name, layer in self.named_children():
            x = layer(x).flatten(1) if name == "avgpool" else layer(x)
        return x
