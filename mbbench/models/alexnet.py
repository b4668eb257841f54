"""AlexNet as in torchvision (Krizhevsky 2014, arXiv 1404.5997), with torchvision's parameter names.

The variant `grouped` has the channels and the two groups of the original network (Krizhevsky et al. 2012), which ran
on two GPUs. Local response normalization is left out, as in torchvision.
"""

from __future__ import annotations

from torch import Tensor, nn

from mbbench.models.vgg16 import AdaptiveAveragePool
from mbbench.spec import ModelSpec

# Output channels, kernel, stride, padding and groups of each convolution, and whether a max pooling follows.
_STANDARD = (
    (64, 11, 4, 2, 1, True),
    (192, 5, 1, 2, 1, True),
    (384, 3, 1, 1, 1, False),
    (256, 3, 1, 1, 1, False),
    (256, 3, 1, 1, 1, True),
)
_GROUPED = (
    (96, 11, 4, 2, 1, True),
    (256, 5, 1, 2, 2, True),
    (384, 3, 1, 1, 1, False),
    (384, 3, 1, 1, 2, False),
    (256, 3, 1, 1, 2, True),
)
_GRID = 6  # height and width of the input of the first fully connected layer


class AlexNet(nn.Module):
    """AlexNet: images (N, 3, R, R), R at least 63, to logits (N, classes)."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = 3
        for outputs, kernel, stride, padding, groups, pooled in _GROUPED if spec.variant == "grouped" else _STANDARD:
            layers += [nn.Conv2d(width, outputs, kernel, stride, padding, groups=groups), nn.ReLU(inplace=True)]
            layers += [nn.MaxPool2d(3, 2)] if pooled else []
            width = outputs
        self.features = nn.Sequential(*layers)
        self.avgpool = AdaptiveAveragePool(_GRID)
        self.classifier = nn.Sequential(
            nn.Dropout(),
            nn.Linear(width * _GRID * _GRID, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Linear(4096, spec.classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))  # type: ignore[no-any-return]
