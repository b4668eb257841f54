"""Network families, and what all of them share: `build`, preprocessing, initialization, folding, loading.

To add a family, write its table and `trace` in this package, its PyTorch module in `modules`, and its line of
`FAMILIES` in mbbench/families.py. Its class takes a `ModelSpec`. A batch norm is registered right after its
convolution, or after a module that ends with it (`batch_norms`). Modules named as in torchvision load torchvision's
checkpoints.

Importing this package does not load torch.
"""

from __future__ import annotations

from importlib import import_module
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from mbbench.errors import UsageError
from mbbench.families import FAMILIES, Family, family_info
from mbbench.spec import ModelSpec, Preprocessing

if TYPE_CHECKING:
    from torch import Tensor, nn


_AUXILIARY_HEADS = ("aux1.", "aux2.", "AuxLogits.")
_PREPROCESSING = {
    "imagenet": Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),  # ImageNet's statistics
    "symmetric": Preprocessing(),  # pixels in [-1, 1]
    "none": Preprocessing(mean=(0.0, 0.0, 0.0), std=(1 / 255,) * 3),  # pixels in [0, 255]
}


def default_preprocessing(family: Family) -> Preprocessing:
    """Return the preprocessing that the family's published checkpoints expect.

    torchvision normalizes with ImageNet's statistics for all its networks. Its GoogLeNet and Inception V3 then map the
    pixels to [-1, 1] (`transform_input`), the range they were trained on; mbbench normalizes to [-1, 1] directly.
    """
    return _PREPROCESSING[family_info(family).normalization]


def build(spec: ModelSpec) -> nn.Module:
    """Return the network in evaluation mode, with torch's default initialization.

    Its input is normalized images, float32 (N, 3, R, R); its output is logits (N, classes).
    """
    if spec.is_file:
        from mbbench.graphs.fx import to_module
        from mbbench.models import files

        return to_module(files.graph(spec))
    module, _, name = FAMILIES[spec.family].network.partition(":")
    network: nn.Module = getattr(import_module(f"mbbench.models.modules.{module}"), name)(spec)
    return network.eval()


def randomize(module: nn.Module, seed: int) -> None:
    """Initialize `module` in place by He et al. 2015 (fan-in), which keeps the scale of activations at any depth.

    A convolution registered right before another one has no activation and gets no gain for one. The weights depend on
    `seed` only; torch's global generator is not used.
    """
    import torch
    from torch import nn

    generator = torch.Generator().manual_seed(seed)
    linear = {
        layer
        for parent in module.modules()
        for layer, following in pairwise(parent.children())
        if isinstance(layer, nn.Conv2d) and isinstance(following, nn.Conv2d)
    }
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nonlinearity: Literal["linear", "relu"] = "linear" if layer in linear else "relu"
            nn.init.kaiming_normal_(layer.weight, nonlinearity=nonlinearity, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def batch_norms(module: nn.Module) -> dict[str, str]:
    """Return the name of each convolution that has a batch norm, and the name of that batch norm.

    A batch norm belongs to the child registered right before it in its parent: a convolution, or a module whose last
    descendant is one.
    """
    from torch import nn

    pairs = {}
    for parent_name, parent in module.named_modules():
        prefix = f"{parent_name}." if parent_name else ""
        for (name, layer), (bn_name, bn) in pairwise(parent.named_children()):
            last_name, last = [*layer.named_modules(prefix=f"{prefix}{name}")][-1]
            if isinstance(bn, nn.BatchNorm2d) and isinstance(last, nn.Conv2d):
                pairs[last_name] = f"{prefix}{bn_name}"
    return pairs


def fold_batch_norm(module: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode with every batch norm folded into its convolution, as it is deployed.

    The outputs are equal up to rounding. `batch_norms` says which batch norm belongs to which convolution.
    """
    import copy

    from torch import nn
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    folded = copy.deepcopy(module).eval()
    for name, bn_name in batch_norms(folded).items():
        conv, bn = folded.get_submodule(name), folded.get_submodule(bn_name)
        assert isinstance(conv, nn.Conv2d) and isinstance(bn, nn.BatchNorm2d)
        folded.set_submodule(name, fuse_conv_bn_eval(conv, bn))
        folded.set_submodule(bn_name, nn.Identity())
    return folded


def load_parameters(module: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Load all tensors of `state` into `module`. Raises `UsageError` as `match_parameters` does."""
    module.load_state_dict(match_parameters(module, state, source))


def match_parameters(module: nn.Module, state: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """Return the tensors of `state` that `module` loads; `module` may be on torch's meta device.

    The auxiliary heads of GoogLeNet and Inception V3, which torchvision's checkpoints include, are ignored. The
    counters that batch norm keeps during training (`num_batches_tracked`) may be missing. Raises `UsageError` that
    names `source` and the first tensor that is missing, unexpected or of the wrong shape.
    """
    expected = module.state_dict()
    loaded = {name: tensor for name, tensor in state.items() if not name.startswith(_AUXILIARY_HEADS)}
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
