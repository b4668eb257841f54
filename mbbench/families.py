"""The network families by name, without building a network; the docstring of mbbench/models explains how to add one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from mbbench.errors import UsageError, choose_one

Family = str  # a key of FAMILIES
Variant = str  # a key of FamilyInfo.variants


@dataclass(frozen=True, slots=True)
class FamilyInfo:
    """What is known about a network family without building a network."""

    label: str  # printed name
    network: str  # "module:Class" in mbbench/models/modules; the class takes a `ModelSpec`
    classifier: str  # name of the weight that has one row for each class
    normalization: Literal["imagenet", "symmetric", "none"]  # of its published checkpoints
    resolution: int = 224  # side of the square input that its authors use, in pixels
    smallest: int = 32  # smallest side that leaves at least one pixel for every layer
    has_alpha: bool = False  # whether it has a width multiplier
    variants: Mapping[Variant, str] = field(default_factory=dict)  # besides `standard`: variant -> prefix of the label

    @property
    def module(self) -> str:
        """Its table's module in mbbench/models; the module of that name in mbbench/models/modules has the network."""
        return self.network.partition(":")[0]


FAMILIES: Mapping[Family, FamilyInfo] = MappingProxyType({
    "mobilenet_v1": FamilyInfo(
        "MobileNet", "mobilenet_v1:MobileNetV1", "classifier.weight", "symmetric",
        has_alpha=True, variants={"full-conv": "Conv", "shallow": "Shallow"},
    ),
    "vgg16": FamilyInfo("VGG16", "vgg16:VGG16", "classifier.6.weight", "imagenet"),
    "googlenet": FamilyInfo("GoogLeNet", "googlenet:GoogLeNet", "fc.weight", "symmetric", variants={"5x5": "5x5"}),
    "mobilenet_v2": FamilyInfo(
        "MobileNetV2", "mobilenet_v2:MobileNetV2", "classifier.1.weight", "imagenet", has_alpha=True
    ),
    "squeezenet1_0": FamilyInfo("SqueezeNet 1.0", "squeezenet:SqueezeNet", "classifier.1.weight", "imagenet"),
    "squeezenet1_1": FamilyInfo("SqueezeNet 1.1", "squeezenet:SqueezeNet", "classifier.1.weight", "imagenet"),
    "alexnet": FamilyInfo(
        "AlexNet", "alexnet:AlexNet", "classifier.6.weight", "imagenet", smallest=63, variants={"grouped": "Grouped"}
    ),
    "inception_v3": FamilyInfo(
        "Inception V3", "inception_v3:InceptionV3", "fc.weight", "symmetric", resolution=299, smallest=75
    ),
    "xception": FamilyInfo("Xception", "xception:Xception", "fc.weight", "symmetric", resolution=299),
})  # fmt: skip


# Networks in files: `onnx` takes normalized pixels, `onnx-uint8` normalizes uint8 pixels itself.
FILE_FAMILIES: Mapping[Family, FamilyInfo] = MappingProxyType({
    "onnx": FamilyInfo("", "", "", "imagenet", smallest=1),
    "onnx-uint8": FamilyInfo("", "", "", "none", smallest=1),
})  # fmt: skip
FILE_SUFFIX, LIBRARIES = ".onnx", ("torchvision:", "timm:")


def family_info(name: Family) -> FamilyInfo:
    """Return the family of that name, of an ONNX file or of a library's network (`timm:NAME`). Raises `UsageError`."""
    if name.endswith(FILE_SUFFIX) or name.startswith(LIBRARIES):
        return FILE_FAMILIES["onnx"]
    info = FAMILIES.get(name) or FILE_FAMILIES.get(name)
    if info is None:
        raise UsageError(f"unknown model: {name!r}", f"{choose_one(name, FAMILIES)}, or give an ONNX file")
    return info
