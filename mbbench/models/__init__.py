"""Network families, and what all of them share: `build`, normalization, initialization, folding, loading.

To add a family, write its module in this package, add one case to `build`, and add its name and its printed name to
mbbench/spec.py (`Family`). If its checkpoints do not expect pixels in [-1, 1], extend `normalization`. If its last
layer has a new name, list it in `weights.checkpoint.CLASSIFIERS`, from which the number of classes is read.

Importing this package does not load torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mbbench.errors import UsageError
from mbbench.spec import Family, ModelSpec

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Normalization:
    """The mean and standard deviation of each channel: a pixel becomes (pixel / 255 - mean) / std."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


_SYMMETRIC = Normalization((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # pixels in [-1, 1]
_IMAGENET = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def normalization(family: Family) -> Normalization:
    """Return the normalization that the family's published checkpoints expect.

    torchvision normalizes with ImageNet's statistics for VGG16 and for GoogLeNet. Its GoogLeNet then maps the pixels to
    [-1, 1] (`transform_input`), the range that network was trained on; mbbench normalizes to [-1, 1] directly.
    """
    return _IMAGENET if family == "vgg16" else _SYMMETRIC


def build(spec: ModelSpec) -> nn.Module:
    """Return the network in evaluation mode, with torch's default initialization.

    Its input is normalized images, float32 (N, 3, R, R); its output is logits (N, classes).
    """
    match spec.family:
        case "mobilenet_v1":
            from mbbench.models.mobilenet_v1 import MobileNetV1

            return MobileNetV1(spec).eval()
        case "vgg16":
            from mbbench.models.vgg16 import VGG16

            return VGG16(spec.classes).eval()
        case "googlenet":
            from mbbench.models.googlenet import GoogLeNet

            return GoogLeNet(spec.classes).eval()


def randomize(module: nn.Module, seed: int) -> None:
    """Initialize `module` in place by He et al. 2015 (fan-in), which keeps the scale of activations at any depth.

    The weights depend on `seed` only; torch's global generator is not used.
    """
    import torch
    from torch import nn

    generator = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def fold_batch_norm(module: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode with every batch norm folded into its convolution, as it is deployed.

    The outputs are equal up to rounding. A convolution and its batch norm are the children `conv` and `bn` of one
    parent.
    """
    import copy

    from torch import nn
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    folded = copy.deepcopy(module).eval()
    for parent in folded.modules():
        conv, bn = getattr(parent, "conv", None), getattr(parent, "bn", None)
        if isinstance(conv, nn.Conv2d) and isinstance(bn, nn.BatchNorm2d):
            parent.conv = fuse_conv_bn_eval(conv, bn)
            parent.bn = nn.Identity()
    return folded


def load_parameters(module: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Load all tensors of `state` into `module`. Raises `UsageError` as `match_parameters` does."""
    module.load_state_dict(match_parameters(module, state, source))


def match_parameters(module: nn.Module, state: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """Return the tensors of `state` that `module` loads; `module` may be on torch's meta device.

    GoogLeNet's auxiliary heads, which torchvision's checkpoints include, are ignored. The counters that batch norm
    keeps during training (`num_batches_tracked`) may be missing. Raises `UsageError` that names `source` and the first
    tensor that is missing, unexpected or of the wrong shape.
    """
    expected = module.state_dict()
    loaded = {name: tensor for name, tensor in state.items() if not name.startswith(("aux1.", "aux2."))}
    remedy = "give a checkpoint that matches --model, --alpha and --variant"
    for name, tensor in expected.items():
        if name not in loaded:
            if name.endswith("num_batches_tracked"):
                loaded[name] = tensor
                continue
            raise UsageError(f"a tensor is missing from {source}: {name}", remedy)
        if loaded[name].shape != tensor.shape:
            shapes = f"{tuple(loaded[name].shape)} instead of {tuple(tensor.shape)}"
            raise UsageError(f"{name} in {source} has the wrong shape: {shapes}", remedy)
    for name in loaded:
        if name not in expected:
            raise UsageError(f"{source} has an unexpected tensor: {name}", remedy)
    return loaded
