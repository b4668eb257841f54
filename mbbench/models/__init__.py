"""The networks: `build` makes one from its spec, in evaluation mode. Importing this loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mbbench.errors import UsageError
from mbbench.spec import Family, ModelSpec

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Normalization:
    """Per channel: (pixel / 255 - mean) / std."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


_SYMMETRIC = Normalization((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # to [-1, 1]
_IMAGENET = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def normalization(family: Family) -> Normalization:
    """What the family's published checkpoints expect.

    torchvision feeds VGG16 ImageNet-normalized pixels. It does so for GoogLeNet too, but its `transform_input` then
    turns them into [-1, 1], which is what that network was trained on; here they are so from the start.
    """
    return _IMAGENET if family == "vgg16" else _SYMMETRIC


def build(spec: ModelSpec) -> nn.Module:
    """The network, with torch's default initialization, in evaluation mode.

    Input (N, 3, R, R) float32, normalized; output logits (N, classes).
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
    """He initialization (He et al. 2015, fan-in), seeded: activations keep their scale at any depth."""
    import torch
    from torch import nn

    generator = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def fold_batch_norm(module: nn.Module) -> nn.Module:
    """A copy in evaluation mode with every batch norm folded into its convolution: what deployment runs.

    Outputs are equal to rounding. Convolutions and batch norms are paired as `conv` and `bn` of one parent.
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
    """Load `state` into `module`, all of it; raises `UsageError` naming the first tensor that does not fit.

    GoogLeNet's auxiliary heads, which torchvision's checkpoints carry, are left out; the counters that batch norm keeps
    while training may be missing.
    """
    own = module.state_dict()
    given = {name: tensor for name, tensor in state.items() if not name.startswith(("aux1.", "aux2."))}
    remedy = "give the checkpoint of this very architecture (--model, --alpha, --variant)"
    for name, tensor in own.items():
        if name not in given:
            if name.endswith("num_batches_tracked"):
                given[name] = tensor
                continue
            raise UsageError(f"{source} lacks {name}", remedy)
        if given[name].shape != tensor.shape:
            shapes = f"{tuple(given[name].shape)}, the model wants {tuple(tensor.shape)}"
            raise UsageError(f"{source} has {name} of shape {shapes}", remedy)
    for name in given:
        if name not in own:
            raise UsageError(f"{source} has {name}, which the model has not", remedy)
    module.load_state_dict(given)
