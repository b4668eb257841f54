"""VGG16 as a PyTorch module, with torchvision's parameter names."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mbbench.models.vgg16 import GRID, HIDDEN, STAGES
from mbbench.spec import ModelSpec


class AdaptiveAveragePool(nn.Module):
    """Average pooling of (N, C, H, W) to (N, C, grid, grid): `nn.AdaptiveAvgPool2d` as two matrix products.

    torchvision's VGG16 pools to 7x7 at every resolution, its AlexNet to 6x6. If the input is not a multiple of that, as
    VGG16's at 128 pixels (4x4), the bins overlap; ONNX has no operator for that. A product with a matrix of bin weights
    is exact and runs in every runtime.
    """

    def __init__(self, grid: int) -> None:
        super().__init__()
        self.grid = grid

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if (height, width) == (self.grid, self.grid):
            return x
        return self._bins(height).to(x) @ x @ self._bins(width).to(x).T

    def _bins(self, size: int) -> Tensor:
        """Return the bin weights (grid, size).

        Row i averages the inputs from floor(i * size / grid) up to, but excluding, ceil((i + 1) * size / grid).
        """
        rows = []
        for i in range(self.grid):
            low, high = i * size // self.grid, -(-(i + 1) * size // self.grid)
            rows.append([1 / (high - low) if low <= j < high else 0.0 for j in range(size)])
        return torch.tensor(rows)


class VGG16(nn.Module):
    """VGG16: images (N, 3, R, R), R at least 32, to logits (N, classes)."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = 3
        for stage in STAGES:
            for channels in stage:
                layers += [nn.Conv2d(width, channels, 3, padding=1), nn.ReLU(inplace=True)]
                width = channels
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.avgpool = AdaptiveAveragePool(GRID)
        self.classifier = nn.Sequential(
            nn.Linear(width * GRID * GRID, HIDDEN),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(HIDDEN, HIDDEN),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(HIDDEN, spec.classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))  # type: ignore[no-any-return]
