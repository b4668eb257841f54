"""AlexNet as a PyTorch module, with torchvision's parameter names."""

from __future__ import annotations

from torch import Tensor, nn

from mbbench.models.alexnet import GRID, table
from mbbench.models.modules.vgg16 import AdaptiveAveragePool
from mbbench.models.vgg16 import HIDDEN
from mbbench.spec import ModelSpec


class AlexNet(nn.Module):
    """AlexNet: images (N, 3, R, R), R at least 63, to logits (N, classes)."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = 3
        for outputs, kernel, stride, padding, groups, pooled in table(spec):
            layers += [nn.Conv2d(width, outputs, kernel, stride, padding, groups=groups), nn.ReLU(inplace=True)]
            layers += [nn.MaxPool2d(3, 2)] if pooled else []
            width = outputs
        self.features = nn.Sequential(*layers)
        self.avgpool = AdaptiveAveragePool(GRID)
        self.classifier = nn.Sequential(
            nn.Dropout(),
            nn.Linear(width * GRID * GRID, HIDDEN),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(HIDDEN, HIDDEN),
            nn.ReLU(inplace=True),
            nn.Linear(HIDDEN, spec.classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))  # type: ignore[no-any-return]
