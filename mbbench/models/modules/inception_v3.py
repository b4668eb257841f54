"""Inception V3 as a PyTorch module, with torchvision's parameter names."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mbbench.models.inception_v3 import MODULES, Branches, names, side
from mbbench.spec import ModelSpec


class ConvBlock(nn.Module):
    """Convolution, batch norm, ReLU. `kernel` is height x width."""

    def __init__(self, inputs: int, outputs: int, kernel: str, stride: int = 1, *, padded: bool) -> None:
        super().__init__()
        height, width = side(kernel)
        padding = (height // 2, width // 2) if padded else 0
        self.conv = nn.Conv2d(inputs, outputs, (height, width), stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))  # type: ignore[no-any-return]


class Mixed(nn.Module):
    """Branches on the same input, concatenated along the channels. `outputs` is their number of channels."""

    def __init__(self, inputs: int, branches: Branches, *, halves: bool) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(3, 2) if halves else nn.AvgPool2d(3, 1, 1)
        self._steps: list[list[list[str]]] = []  # of each branch: the names of the layers that read the same tensor
        self.outputs = inputs if halves else 0
        for branch, table in branches.items():
            width = inputs
            steps = [["pool"]] if branch == "branch_pool" else []
            for number, (channels, kernels) in enumerate(table, 1):
                last = number == len(table)
                layers = names(branch, table, number)
                for name, kernel in zip(layers, kernels.split(), strict=True):
                    reduces = halves and last
                    block = ConvBlock(width, channels, kernel, 2 if reduces else 1, padded=not reduces)
                    self.add_module(name, block)
                    self.outputs += channels if last else 0
                steps.append(layers)
                width = channels
            self._steps.append(steps)
        if halves:
            self._steps.append([["pool"]])

    def forward(self, x: Tensor) -> Tensor:
        outputs: list[Tensor] = []
        for steps in self._steps:
            tensors = [x]
            for layers in steps:
                tensors = [self.get_submodule(name)(tensors[0]) for name in layers]
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
        for name, (branches, halves) in MODULES.items():
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
