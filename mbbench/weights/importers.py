"""Import of other frameworks' checkpoints: `keras:FILE.h5`, `timm:FILE`, `torchvision:FILE`.

To add an importer, write a function of (tensors, spec, path) here and list it in `KINDS`, under the name that --weights
takes. It returns the tensors under the names of `mbbench.models.build(spec)`, with which `fit` compares them; it marks
names that the framework does not use by `_unknown`. An importer never unpickles anything except tensors: `read` is
`checkpoint.read` for safetensors and PyTorch files. If an importer's result for the same file changes, increase
`IMPORTER`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mbbench.errors import UsageError
from mbbench.families import FAMILIES, Family
from mbbench.spec import ModelSpec, Padding
from mbbench.weights import checkpoint, content, hdf5
from mbbench.weights.states import StateDict

if TYPE_CHECKING:
    from torch import Tensor

IMPORTER = 3  # version of all importers
_TIMM_EPSILON = 1e-5
_TIMM_STAGES = (1, 2, 2, 6, 2)  # number of blocks in each stage; timm groups the 13 blocks by resolution
_KERAS_EPSILON = 1e-3
_KERAS_BLOCK = re.compile(r"block(?P<block>\d+)_(?:sep)?conv(?P<index>\d)(?P<norm>_bn)?")
_KERAS_SKIP, _KERAS_SKIP_NORM = (re.compile(rf"{name}(?:_(\d+))?") for name in ("conv2d", "batch_normalization"))
_HALVING_BLOCKS = (1, 2, 3, 12)  # of Xception
_BATCH_NORM = ("weight", "bias", "running_mean", "running_var")
_KERAS_BATCH_NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}

State = dict[str, "Tensor"]


@dataclass(frozen=True, slots=True)
class Importer:
    """A framework whose checkpoints are read. `networks`: the families that it has, with its names for them."""

    framework: str
    networks: Mapping[Family, str]
    read: Callable[[Path], StateDict]
    convert: Callable[[State, ModelSpec, Path], State]
    padding: Padding = "symmetric"


def _read_keras(path: Path) -> StateDict:
    """Return the arrays of an HDF5 file. Another checkpoint is read too, so that `fit` can say what it holds."""
    is_hdf5 = content.read_head(path).startswith(hdf5.SIGNATURE)
    return hdf5.read(path) if is_hdf5 else checkpoint.read(path)


def _keras(tensors: State, spec: ModelSpec, _path: Path) -> State:
    """Convert MobileNetV1 or Xception of Keras Applications (legacy HDF5).

    Kernels are (H, W, in, out), those of depthwise convolutions (H, W, in, 1).
    """
    if spec.family == "xception":
        return _keras_xception(tensors)
    state = {}
    for key, value in tensors.items():
        layer, _, variable = key.rpartition("/")
        module, kind = _keras_layer(layer)
        if kind == "bn" and variable in _KERAS_BATCH_NORM:
            state[f"{module}.bn.{_KERAS_BATCH_NORM[variable]}"] = value
        elif kind == "classifier" and variable == "bias":
            state["classifier.bias"] = value
        elif not kind or value.ndim != 4 or value.numel() == 0 or not variable.endswith("kernel"):
            state[_unknown(key, "Keras")] = value
        elif kind == "classifier":
            state["classifier.weight"] = value[0, 0].T.contiguous()
        else:
            order = (2, 3, 0, 1) if kind == "depthwise" else (3, 2, 0, 1)
            state[f"{module}.conv.weight"] = value.permute(order).contiguous()
    return state


def _unknown(name: str, framework: str) -> str:
    """Return a name that no network of mbbench has, even if `name` is one of its."""
    return f"{name} (unknown to {framework})"


def _keras_layer(layer: str) -> tuple[str, str]:
    """Return the module in mbbench's network and its kind: `conv_dw_3_bn` -> (`blocks.2.0`, `bn`).

    The kind of an unknown layer is empty.
    """
    if layer == "conv_preds":
        return "", "classifier"
    kind = "bn" if layer.endswith("_bn") else ""
    name = layer.removesuffix("_bn")
    if name == "conv1":
        return "stem", kind or "conv"
    match = re.fullmatch(r"conv_(dw|pw)_(\d+)", name)
    if match is None:
        return "", ""
    depthwise = match[1] == "dw"
    return f"blocks.{int(match[2]) - 1}.{0 if depthwise else 1}", kind or ("depthwise" if depthwise else "conv")


def _keras_xception(tensors: State) -> State:
    """Convert Xception of Keras Applications.

    The four 1x1 convolutions beside the blocks, and their batch norms, have names with a running number (`conv2d_3`).
    Keras's batch norm has an epsilon of 1e-3; its difference from mbbench's is added to the variances.
    """
    from mbbench.models.xception import EPSILON

    layers = dict.fromkeys(key.rpartition("/")[0] for key in tensors)
    modules: dict[str, str] = {"predictions": "fc"}
    for pattern, module in ((_KERAS_SKIP, "skip"), (_KERAS_SKIP_NORM, "skipbn")):
        found = sorted((int(match[1] or 0), layer) for layer in layers if (match := pattern.fullmatch(layer)))
        modules |= {layer: f"block{block}.{module}" for (_, layer), block in zip(found, _HALVING_BLOCKS, strict=False)}
    for layer in layers:
        if (match := _KERAS_BLOCK.fullmatch(layer)) is not None:
            modules[layer] = _xception_module(int(match["block"]), int(match["index"]), match["norm"] is not None)
    state = {}
    for key, value in tensors.items():
        layer, _, variable = key.rpartition("/")
        target = modules.get(layer, "")
        if target and variable in _KERAS_BATCH_NORM:
            shift = _KERAS_EPSILON - EPSILON if variable == "moving_variance" else 0
            state[f"{target}.{_KERAS_BATCH_NORM[variable]}"] = value + shift
        elif target and variable == "bias":
            state[f"{target}.bias"] = value
        elif target and variable == "kernel" and value.ndim in (2, 4):
            state[f"{target}.weight"] = (value.T if value.ndim == 2 else value.permute(3, 2, 0, 1)).contiguous()
        elif target and variable == "depthwise_kernel" and value.ndim == 4:
            state[f"{target}.conv1.weight"] = value.permute(2, 3, 0, 1).contiguous()
        elif target and variable == "pointwise_kernel" and value.ndim == 4:
            state[f"{target}.pointwise.weight"] = value.permute(3, 2, 0, 1).contiguous()
        else:
            state[_unknown(key, "Keras")] = value
    return state


def _xception_module(block: int, index: int, norm: bool) -> str:
    """Return the module of a layer in one of Keras's 14 blocks: the first is our stem, the last comes after ours."""
    if block in (1, 14):
        return f"{'bn' if norm else 'conv'}{index if block == 1 else index + 2}"
    position = 3 * (index - 1) + (block > 2) + norm  # the first block has no leading ReLU
    return f"block{block - 1}.rep.{position}"


def _timm(tensors: State, spec: ModelSpec, path: Path) -> State:
    """Convert timm's mobilenetv1_100, mobilenetv1_125 and legacy_xception, whose names mbbench has too.

    MobileNetV1's batch norm has an epsilon of 1e-5; its difference from mbbench's is added to the variances. Raises
    `UsageError` for mobilenetv1_100h, which is another network.
    """
    from mbbench.models.mobilenet_v1 import EPSILON

    if spec.family == "xception":
        return tensors

    names = {"conv_stem": "stem.conv", "bn1": "stem.bn", "classifier": "classifier"}
    positions = [(stage, index) for stage, count in enumerate(_TIMM_STAGES) for index in range(count)]
    for block, (stage, index) in enumerate(positions):
        for source, target in (("conv_dw", "0.conv"), ("bn1", "0.bn"), ("conv_pw", "1.conv"), ("bn2", "1.bn")):
            names[f"blocks.{stage}.{index}.{source}"] = f"blocks.{block}.{target}"
    last = f"blocks.{len(_TIMM_STAGES) - 1}.{_TIMM_STAGES[-1] - 1}.conv_pw.weight"
    if {last, "conv_head.weight"} <= tensors.keys() and not any(".conv_pwl." in name for name in tensors):
        raise UsageError(
            f"{path} holds timm's mobilenetv1_100h, whose convolution conv_head after the last block the paper's"
            " MobileNetV1 does not have",
            "give a checkpoint of timm's mobilenetv1_100, or of mobilenetv1_125 with --alpha 1.25",
        )
    state = {}
    for key, tensor in tensors.items():
        module, _, parameter = key.rpartition(".")
        value = tensor + (_TIMM_EPSILON - EPSILON) if parameter == "running_var" else tensor
        state[f"{names[module]}.{parameter}" if module in names else _unknown(key, "timm")] = value
    return state


def _torchvision(tensors: State, spec: ModelSpec, _path: Path) -> State:
    """Convert a network of torchvision, whose parameters have the same names in mbbench.

    The batch norms of VGG16-BN are folded into its convolutions.
    """
    folds = spec.family == "vgg16" and any(re.fullmatch(r"features\.\d+\.running_var", name) for name in tensors)
    return _fold_vgg(tensors) if folds else tensors


def _fold_vgg(state: State) -> State:
    """Return the state dict of VGG16 for that of VGG16-BN; another network's stays as it is.

    torchvision numbers layers consecutively, so each batch norm that is folded lowers the numbers after it by one.
    """
    import torch
    from torch.nn.utils.fusion import fuse_conv_bn_weights

    folded = {name: tensor for name, tensor in state.items() if name.startswith("classifier.")}
    features = sorted({int(match[1]) for name in state if (match := re.match(r"features\.(\d+)\.", name))})
    norms = [index for index in features if f"features.{index}.running_var" in state]
    used = {f"features.{norm}.{name}" for norm in norms for name in ("weight", "bias", "running_mean")}
    if not used | {f"features.{norm - 1}.{name}" for norm in norms for name in ("weight", "bias")} <= state.keys():
        return state
    for count, norm in enumerate(norms, 1):
        conv, bn = f"features.{norm - 1}", f"features.{norm}"
        vectors = [state[f"{conv}.bias"], *(state[f"{bn}.{name}"] for name in _BATCH_NORM)]
        if any(vector.shape != state[f"{conv}.weight"].shape[:1] for vector in vectors):
            return state  # `fit` names the wrong shape
        weight, bias = fuse_conv_bn_weights(
            state[f"{conv}.weight"], state[f"{conv}.bias"], state[f"{bn}.running_mean"], state[f"{bn}.running_var"],
            1e-5, state[f"{bn}.weight"], state[f"{bn}.bias"],
        )  # fmt: skip
        target = f"features.{norm - count}"
        folded |= {f"{target}.weight": torch.Tensor(weight.data), f"{target}.bias": torch.Tensor(bias.data)}
    return folded


_WITH_XCEPTION: Mapping[Family, str] = {"mobilenet_v1": "MobileNetV1", "xception": "Xception"}
_TORCHVISION: Mapping[Family, str] = {
    family: FAMILIES[family].label for family in FAMILIES if family not in ("mobilenet_v1", "xception")
}
KINDS: Mapping[str, Importer] = {
    "keras": Importer("Keras", _WITH_XCEPTION, _read_keras, _keras, "keras"),
    "timm": Importer("timm", _WITH_XCEPTION, checkpoint.read, _timm),
    "torchvision": Importer("torchvision", _TORCHVISION, checkpoint.read, _torchvision),
}
