"""VGG16 (Simonyan and Zisserman 2014, arXiv 1409.1556, configuration D), with torchvision's parameter names."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mbbench.spec import ModelSpec

# Output channels of the 3x3 convolutions of each stage. Each stage ends with 2x2 max pooling.
_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
_GRID = 7  # height and width of the input of the first fully connected layer


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
        for stage in _STAGES:
            for channels in stage:
                layers += [nn.Conv2d(width, channels, 3, padding=1), nn.ReLU(inplace=True)]
                width = channels
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.avgpool = AdaptiveAveragePool(_GRID)
        self.classifier = nn.Sequential(
            nn.Linear(width * _GRID * _GRID, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(4096, spec.classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))  # type: ignore[no-any-return]
