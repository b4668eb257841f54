"""Import of other frameworks' checkpoints: `keras:FILE.h5`, `timm:FILE`, `torchvision:FILE`.

To add an importer, write a function of (path, spec) here and list it in `KINDS`, under the name that --weights takes.
It returns the state dict of `mbbench.models.build(spec)` and the padding of the convolutions, and raises `UsageError`
if the file is not a checkpoint of that framework and network. An importer never unpickles anything except tensors; read
PyTorch files with `checkpoint.read_state`. If an importer's result for the same file changes, increase `IMPORTER`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbbench.errors import UsageError
from mbbench.spec import FAMILIES, ModelSpec, Padding
from mbbench.weights import checkpoint

if TYPE_CHECKING:
    from torch import Tensor

IMPORTER = 1  # version of all importers
_TIMM_EPSILON = 1e-5
_TIMM_STAGES = (1, 2, 2, 6, 2)  # number of blocks in each stage; timm groups the 13 blocks by resolution
_KERAS_BATCH_NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}

State = dict[str, "Tensor"]


def read_state(kind: str, path: Path, spec: ModelSpec) -> tuple[State, ModelSpec]:
    """Return the state dict in `path`, a checkpoint of framework `kind`, and the spec of its network.

    The result's spec is `spec` with the checkpoint's number of classes and padding. Raises `UsageError`.
    """
    state, padding = KINDS[kind](path, spec)
    classifier = state.get(FAMILIES[spec.family].classifier)
    classes = spec.classes if classifier is None else len(classifier)
    return state, replace(spec, classes=classes, padding=padding)


def _keras(path: Path, spec: ModelSpec) -> tuple[State, Padding]:
    """Read MobileNetV1 of Keras Applications (legacy HDF5).

    Its kernels are (H, W, in, out), those of depthwise convolutions (H, W, in, 1).
    """
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
            array, target = value, f"{module}.bn.{_KERAS_BATCH_NORM.get(name, name)}"
        else:
            array = value.transpose(2, 3, 0, 1) if kind == "depthwise" else value.transpose(3, 2, 0, 1)
            target = f"{module}.conv.weight"
        state[target] = torch.from_numpy(np.ascontiguousarray(array, np.float32))
    return state, "keras"


def _hdf5(path: Path) -> Iterator[tuple[str, str, Any]]:
    """Yield (layer, variable, array) of every array in the file."""
    import h5py

    try:
        with h5py.File(path) as file:
            names: list[str] = []
            file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
            for name in names:
                layer, _, variable = name.partition("/")
                yield layer, variable.rpartition("/")[2].removesuffix(":0").replace("depthwise_", ""), file[name][()]
    except OSError as error:
        raise UsageError(
            f"cannot read {path} as HDF5 ({str(error).splitlines()[0]})", "give the .h5 file that Keras publishes"
        ) from error


def _keras_layer(layer: str) -> tuple[str, str]:
    """Return the module in mbbench's network and its kind: `conv_dw_3_bn` -> (`blocks.2.0`, `bn`)."""
    if layer == "conv_preds":
        return "", "classifier"
    kind = "bn" if layer.endswith("_bn") else ""
    name = layer.removesuffix("_bn")
    if name == "conv1":
        return "stem", kind or "conv"
    match = re.fullmatch(r"conv_(dw|pw)_(\d+)", name)
    if match is None:
        raise UsageError(f"Keras's MobileNetV1 has no layer {layer}", "give a checkpoint of Keras's MobileNetV1")
    depthwise = match[1] == "dw"
    return f"blocks.{int(match[2]) - 1}.{0 if depthwise else 1}", kind or ("depthwise" if depthwise else "conv")


def _timm(path: Path, spec: ModelSpec) -> tuple[State, Padding]:
    """Read timm's mobilenetv1_*.

    Its batch norm has an epsilon of 1e-5; its difference from mbbench's is added to the variances.
    """
    _require_mobilenet("timm", spec)
    from mbbench.models.mobilenet_v1 import EPSILON

    names = {"conv_stem": "stem.conv", "bn1": "stem.bn"}
    positions = [(stage, index) for stage, count in enumerate(_TIMM_STAGES) for index in range(count)]
    for block, (stage, index) in enumerate(positions):
        for source, target in (("conv_dw", "0.conv"), ("bn1", "0.bn"), ("conv_pw", "1.conv"), ("bn2", "1.bn")):
            names[f"blocks.{stage}.{index}.{source}"] = f"blocks.{block}.{target}"
    state = {}
    for key, tensor in checkpoint.read_state(path).items():
        module, _, parameter = key.rpartition(".")
        value = tensor + (_TIMM_EPSILON - EPSILON) if parameter == "running_var" else tensor
        state[f"{names.get(module, module)}.{parameter}"] = value
    return state, "symmetric"


def _torchvision(path: Path, spec: ModelSpec) -> tuple[State, Padding]:
    """Read VGG16 or GoogLeNet of torchvision, whose parameters have the same names in mbbench.

    The batch norms of VGG16-BN are folded into its convolutions.
    """
    if spec.family == "mobilenet_v1":
        raise UsageError("torchvision has no MobileNetV1", "give --model vgg16 or googlenet")
    state = checkpoint.read_state(path)
    if spec.family == "vgg16" and any(name.endswith("running_var") for name in state):
        state = _fold_vgg(state)
    return state, "symmetric"


def _fold_vgg(state: State) -> State:
    """Return the state dict of VGG16 for that of VGG16-BN.

    torchvision numbers layers consecutively, so each batch norm that is folded lowers the numbers after it by one.
    """
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
        raise UsageError(
            f"{kind} checkpoints are supported only for the standard MobileNetV1: {spec.label}",
            "leave out --model and --variant",
        )


KINDS: Mapping[str, Callable[[Path, ModelSpec], tuple[State, Padding]]] = {
    "keras": _keras,
    "timm": _timm,
    "torchvision": _torchvision,
}
