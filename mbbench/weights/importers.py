"""Checkpoints of other frameworks, turned into this project's: `keras:FILE.h5`, `timm:FILE`, `torchvision:FILE`.

Each gives the state dict of `mbbench.models.build(spec)`; raises `UsageError` for a file that is not what it is said to
be. Nothing that could run code is read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbbench.errors import UsageError
from mbbench.spec import ModelSpec
from mbbench.weights import checkpoint

if TYPE_CHECKING:
    from torch import Tensor

IMPORTER = 1  # raise it when an importer makes other weights of the same file
_TIMM_EPSILON = 1e-5
_STAGES = (1, 2, 2, 6, 2)  # timm groups the thirteen blocks by resolution
_BATCH_NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}

State = dict[str, "Tensor"]


def load(kind: str, path: Path, spec: ModelSpec) -> tuple[State, ModelSpec]:
    """The parameters in `path`, a checkpoint of the framework `kind`, and `spec` as they need it."""
    state, padding = KINDS[kind](path, spec)
    classes = next((len(state[name]) for name in checkpoint.CLASSIFIERS if name in state), spec.classes)
    return state, replace(spec, classes=classes, padding=padding)


def _keras(path: Path, spec: ModelSpec) -> tuple[State, Any]:
    """MobileNetV1 of keras.applications (legacy HDF5): kernels (H, W, in, out), depthwise (H, W, in, 1)."""
    _require_mobilenet("keras", spec)
    import numpy as np
    import torch

    state = {}
    for layer, name, value in _hdf5(path):
        module, kind = _keras_layer(layer)
        if kind == "classifier":
            array = value[0, 0].T if name == "kernel" else value
            target = f"classifier.{'weight' if name == 'kernel' else name}"
        elif kind == "bn":
            array, target = value, f"{module}.bn.{_BATCH_NORM.get(name, name)}"
        else:
            array = value.transpose(2, 3, 0, 1) if kind == "depthwise" else value.transpose(3, 2, 0, 1)
            target = f"{module}.conv.weight"
        state[target] = torch.from_numpy(np.ascontiguousarray(array, np.float32))
    return state, "keras"


def _hdf5(path: Path) -> Iterator[tuple[str, str, Any]]:
    """(layer, variable, array) of every array in the file."""
    import h5py

    try:
        with h5py.File(path) as file:
            found: list[str] = []
            file.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
            for name in found:
                layer, _, variable = name.partition("/")
                yield layer, variable.rpartition("/")[2].removesuffix(":0").replace("depthwise_", ""), file[name][()]
    except OSError as error:
        raise UsageError(
            f"cannot read {path} as HDF5 ({str(error).splitlines()[0]})", "give Keras's published .h5 file"
        ) from error


def _keras_layer(layer: str) -> tuple[str, str]:
    """`conv_dw_3_bn` -> (`blocks.2.0`, `bn`)."""
    if layer == "conv_preds":
        return "", "classifier"
    kind = "bn" if layer.endswith("_bn") else ""
    name = layer.removesuffix("_bn")
    if name == "conv1":
        return "stem", kind or "conv"
    match = re.fullmatch(r"conv_(dw|pw)_(\d+)", name)
    if match is None:
        raise UsageError(f"there is a layer {layer} that no MobileNetV1 of Keras has", "give a MobileNetV1 checkpoint")
    depthwise = match[1] == "dw"
    return f"blocks.{int(match[2]) - 1}.{0 if depthwise else 1}", kind or ("depthwise" if depthwise else "conv")


def _timm(path: Path, spec: ModelSpec) -> tuple[State, Any]:
    """timm's mobilenetv1_*: batch norm's epsilon is 1e-5 there, which moves into the variances."""
    _require_mobilenet("timm", spec)
    from mbbench.models.mobilenet_v1 import EPSILON

    names = {"conv_stem": "stem.conv", "bn1": "stem.bn"}
    places = [(stage, index) for stage, count in enumerate(_STAGES) for index in range(count)]
    for block, (stage, index) in enumerate(places):
        for theirs, ours in (("conv_dw", "0.conv"), ("bn1", "0.bn"), ("conv_pw", "1.conv"), ("bn2", "1.bn")):
            names[f"blocks.{stage}.{index}.{theirs}"] = f"blocks.{block}.{ours}"
    state = {}
    for key, tensor in checkpoint.load(path).items():
        module, _, parameter = key.rpartition(".")
        value = tensor + (_TIMM_EPSILON - EPSILON) if parameter == "running_var" else tensor
        state[f"{names.get(module, module)}.{parameter}"] = value
    return state, "symmetric"


def _torchvision(path: Path, spec: ModelSpec) -> tuple[State, Any]:
    """VGG16 and GoogLeNet have torchvision's names here; VGG16-BN's batch norms are folded into its convolutions."""
    if spec.family == "mobilenet_v1":
        raise UsageError("torchvision has no MobileNetV1", "give --model vgg16 or googlenet")
    state = checkpoint.load(path)
    if spec.family == "vgg16" and any(name.endswith("running_var") for name in state):
        state = _fold_vgg(state)
    return state, "symmetric"


def _fold_vgg(state: State) -> State:
    """torchvision numbers convolution, batch norm and ReLU of a block in sequence; without batch norm it skips one."""
    import torch
    from torch.nn.utils.fusion import fuse_conv_bn_weights

    folded = {name: tensor for name, tensor in state.items() if name.startswith("classifier.")}
    features = sorted({int(name.split(".")[1]) for name in state if name.startswith("features.")})
    norms = [index for index in features if f"features.{index}.running_var" in state]
    for count, norm in enumerate(norms, 1):
        conv, bn = f"features.{norm - 1}", f"features.{norm}"
        weight, bias = fuse_conv_bn_weights(
            state[f"{conv}.weight"], state[f"{conv}.bias"], state[f"{bn}.running_mean"], state[f"{bn}.running_var"],
            1e-5, state[f"{bn}.weight"], state[f"{bn}.bias"],
        )  # fmt: skip
        target = f"features.{norm - count}"
        folded |= {f"{target}.weight": torch.Tensor(weight.data), f"{target}.bias": torch.Tensor(bias.data)}
    return folded


def _require_mobilenet(kind: str, spec: ModelSpec) -> None:
    if spec.family != "mobilenet_v1" or spec.variant != "standard":
        raise UsageError(f"{kind} checkpoints are read for MobileNetV1 alone", "leave out --model and --variant")


KINDS: Mapping[str, Callable[[Path, ModelSpec], tuple[State, Any]]] = {
    "keras": _keras,
    "timm": _timm,
    "torchvision": _torchvision,
}
