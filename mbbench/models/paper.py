"""Published figures: the MobileNet paper's tables and claims, and the accuracies of the released checkpoints.

The paper is Howard et al. 2017, arXiv 1704.04861. Tables 2 to 10 below were compared, cell by cell, with the text
of a copy of it. The checkpoints' accuracies are from TF-slim (research/slim/nets/mobilenet_v1.md); Keras Applications
ships the same weights. These figures are always shown as published, never as measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from mbbench.families import Family
from mbbench.models.cost import Cost, cost_of
from mbbench.spec import ModelSpec, Precision


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """One network of the paper's tables: top-1 in percent, Mult-Adds and parameters in millions, as printed."""

    tables: tuple[int, ...]
    name: str
    top1_percent: float
    mult_adds: str
    parameters: str
    spec: ModelSpec


@dataclass(frozen=True, slots=True)
class Comparison:
    """A printed figure and the counted one, in the same unit.

    `reason` explains a difference that rounding does not; it is None if the figures agree.
    """

    name: str  # name of the network or layer type
    what: str  # "Mult-Adds" or "parameters"
    printed: str
    counted: float
    agrees: bool
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproduction:
    """The costs in the paper's tables next to the counted ones."""

    table_2: tuple[Comparison, ...]
    table_3: tuple[Comparison, ...]
    tables_4_to_9: tuple[Comparison, ...]
    table_10: tuple[Comparison, ...]


def _dogs(family: Family = "mobilenet_v1", alpha: float = 1.0, resolution: int = 224) -> ModelSpec:
    return ModelSpec(family, alpha, resolution, classes=120)


VGG16 = ModelSpec(family="vgg16")
GOOGLENET = ModelSpec(family="googlenet")

# Top-1 on ImageNet.
ROWS = (
    PublishedRow((4,), "Conv MobileNet", 71.7, "4866", "29.3", ModelSpec(variant="full-conv")),
    PublishedRow((4, 6, 7, 8), "1.0 MobileNet-224", 70.6, "569", "4.2", ModelSpec()),
    PublishedRow((5, 6), "0.75 MobileNet-224", 68.4, "325", "2.6", ModelSpec(alpha=0.75)),
    PublishedRow((5,), "Shallow MobileNet", 65.3, "307", "2.9", ModelSpec(variant="shallow")),
    PublishedRow((6,), "0.5 MobileNet-224", 63.7, "149", "1.3", ModelSpec(alpha=0.5)),
    PublishedRow((6,), "0.25 MobileNet-224", 50.6, "41", "0.5", ModelSpec(alpha=0.25)),
    PublishedRow((7,), "1.0 MobileNet-192", 69.1, "418", "4.2", ModelSpec(resolution=192)),
    PublishedRow((7,), "1.0 MobileNet-160", 67.2, "290", "4.2", ModelSpec(resolution=160)),
    PublishedRow((7,), "1.0 MobileNet-128", 64.4, "186", "4.2", ModelSpec(resolution=128)),
    PublishedRow((8,), "GoogleNet", 69.8, "1550", "6.8", GOOGLENET),
    PublishedRow((8,), "VGG 16", 71.5, "15300", "138", VGG16),
    PublishedRow((9,), "0.50 MobileNet-160", 60.2, "76", "1.32", ModelSpec(alpha=0.5, resolution=160)),
    PublishedRow((9,), "Squeezenet", 57.5, "1700", "1.25", ModelSpec("squeezenet1_0")),
    PublishedRow((9,), "AlexNet", 57.2, "720", "60", ModelSpec("alexnet", variant="grouped")),
)

# Top-1 on Stanford Dogs, which has 120 classes.
DOGS = (
    PublishedRow((10,), "Inception V3, Dogs", 84.0, "5000", "23.2", _dogs("inception_v3", resolution=299)),
    PublishedRow((10,), "1.0 MobileNet-224, Dogs", 83.3, "569", "3.3", _dogs()),
    PublishedRow((10,), "0.75 MobileNet-224, Dogs", 81.9, "325", "1.9", _dogs(alpha=0.75)),
    PublishedRow((10,), "1.0 MobileNet-192, Dogs", 81.9, "418", "3.3", _dogs(resolution=192)),
    PublishedRow((10,), "0.75 MobileNet-192, Dogs", 80.5, "239", "1.9", _dogs(alpha=0.75, resolution=192)),
)

# Table 3, one 14x14x512 layer with 3x3 kernels: name, Mult-Adds and parameters in millions, the network that has it.
LAYERS = (
    ("Convolution", "462", "2.36", ModelSpec(variant="full-conv")),
    ("Depthwise separable convolution", "52.3", "0.27", ModelSpec()),
    ("alpha = 0.75", "29.6", "0.15", ModelSpec(alpha=0.75)),
    ("rho = 0.714", "15.1", "0.15", ModelSpec(alpha=0.75, resolution=160)),
)
_LAYER = "blocks.7."  # the second of the five 14x14x512 blocks

# Table 2, 1.0 MobileNet-224: layer type -> share of the Mult-Adds and share of the parameters, in percent.
LAYER_TYPES: Mapping[str, tuple[str, str]] = {
    "Conv 1x1": ("94.86", "74.59"),
    "Conv DW 3x3": ("3.06", "1.06"),
    "Conv 3x3": ("1.19", "0.02"),
    "Fully connected": ("0.18", "24.33"),
}

# Section 4.2: family -> how many times fewer parameters and fewer Mult-Adds 1.0 MobileNet-224 has.
CLAIMS: Mapping[str, tuple[str, str]] = {
    "vgg16": ("32x", "27x"),
    "googlenet": (">1x", ">2.5x"),
}

# Released checkpoints: (alpha, resolution) -> ImageNet top-1 and top-5 in percent.
CHECKPOINTS: Mapping[tuple[float, int], tuple[float, float]] = {
    (1.0, 224): (70.9, 89.9), (1.0, 192): (70.0, 89.2), (1.0, 160): (68.0, 87.7), (1.0, 128): (65.2, 85.8),
    (0.75, 224): (68.4, 88.2), (0.75, 192): (67.2, 87.3), (0.75, 160): (65.3, 86.0), (0.75, 128): (62.1, 83.9),
    (0.5, 224): (63.3, 84.9), (0.5, 192): (61.7, 83.6), (0.5, 160): (59.1, 81.9), (0.5, 128): (56.3, 79.4),
    (0.25, 224): (49.8, 74.2), (0.25, 192): (47.7, 72.3), (0.25, 160): (45.5, 70.3), (0.25, 128): (41.5, 66.3),
}  # fmt: skip

# Released checkpoints trained for 8 bits (same page): (alpha, resolution) -> ImageNet top-1 in percent.
CHECKPOINTS_INT8: Mapping[tuple[float, int], float] = {
    (1.0, 224): 69.7, (1.0, 192): 69.0, (1.0, 160): 67.3, (1.0, 128): 64.0,
    (0.75, 224): 67.9, (0.75, 192): 66.2, (0.75, 160): 63.9, (0.75, 128): 59.8,
    (0.5, 224): 62.2, (0.5, 192): 60.4, (0.5, 160): 57.7, (0.5, 128): 54.9,
    (0.25, 224): 48.2, (0.25, 192): 45.8, (0.25, 160): 43.5, (0.25, 128): 39.9,
}  # fmt: skip

# timm's checkpoints ra4_e3600_r224_in1k: (family, alpha, resolution) -> ImageNet top-1 in percent.
TIMM: Mapping[tuple[str, float, int], float] = {
    ("mobilenet_v1", 1.0, 224): 75.382,
    ("mobilenet_v1", 1.0, 256): 76.094,
    ("mobilenet_v1", 1.25, 224): 76.924,
    ("mobilenet_v1", 1.25, 256): 77.600,
}

_REASONS: Mapping[tuple[str, str], str] = {
    ("Conv MobileNet", "Mult-Adds"): "4866.3 without the classifier (1.0), which the paper apparently leaves out here",
    ("GoogleNet", "Mult-Adds"): "Torchvision's network has 3x3 convolutions instead of 5x5; with 5x5 it is 1583",
    ("GoogleNet", "parameters"): "Torchvision's network has 3x3 convolutions instead of 5x5; with 5x5 it is 6.99",
    ("Squeezenet", "Mult-Adds"): "1700 apparently counts multiplications and additions; counted alike, 0.50"
    " MobileNet-160 computes 10.7 times less, not 22 times",
    ("Squeezenet", "parameters"): "1.248 with biases",
    ("AlexNet", "Mult-Adds"): "The paper apparently rounds to two digits",
    ("Inception V3, Dogs", "Mult-Adds"): "The paper apparently takes the round 5 billion of the Inception V3 paper",
    ("Inception V3, Dogs", "parameters"): "21.75 without the classifier, 23.80 with 1000 classes: 23.2 is neither",
    ("1.0 MobileNet-224, Dogs", "Mult-Adds"): "568.7 with 1000 classes, which the paper apparently counts here",
    ("1.0 MobileNet-192, Dogs", "Mult-Adds"): "418.1 with 1000 classes, which the paper apparently counts here",
    ("VGG 16", "Mult-Adds"): "15347 without the fully connected layers, which the usual 15.3 billion leaves out",
    ("Conv 3x3", "Mult-Adds"): "The printed digits are apparently swapped: with 1.91 the paper's column sums to 100",
}


def row_of(spec: ModelSpec) -> PublishedRow | None:
    """Return the paper's ImageNet row for this network, or None; a pruned network has none. Classes are ignored."""
    return next((row for row in ROWS if _same_network(row.spec, spec)), None)


def printed_row(spec: ModelSpec) -> PublishedRow | None:
    """Return the paper's row for this network with this number of classes, or None; a pruned network has none."""
    rows = (*ROWS, *DOGS)
    return next((row for row in rows if _same_network(row.spec, spec) and row.spec.classes == spec.classes), None)


def published_top1(
    spec: ModelSpec, precision: Precision = "fp32", weights: str | None = None
) -> tuple[float, str] | None:
    """Return the published ImageNet top-1 in percent and its source, or None.

    The released checkpoint's accuracy takes precedence over the paper's. Pruned networks, bf16 and fp16 have none.
    `weights` as in `Cell`: a checkpoint of timm has the accuracy that timm publishes for it, in fp32.
    """
    if spec.widths is not None or precision not in ("fp32", "int8"):
        return None
    if weights is not None and weights.startswith("timm:"):
        percent = TIMM.get((spec.family, spec.alpha, spec.resolution)) if precision == "fp32" else None
        return None if percent is None else (percent, "timm's checkpoint")
    if precision == "int8":
        released = spec.family == "mobilenet_v1" and spec.variant == "standard"
        percent = CHECKPOINTS_INT8.get((spec.alpha, spec.resolution)) if released else None
        return None if percent is None else (percent, "released checkpoint, trained for 8 bits")
    if spec.family == "mobilenet_v1" and spec.variant == "standard":
        checkpoint = CHECKPOINTS.get((spec.alpha, spec.resolution))
        if checkpoint is not None:
            return checkpoint[0], "released checkpoint"
    row = row_of(spec)
    if row is None and spec.family != "mobilenet_v1":  # published at 224 only
        row = row_of(replace(spec, resolution=224)) or row_of(ModelSpec(family=spec.family))
    return None if row is None else (row.top1_percent, f"paper, Table {row.tables[-1]}")


def reproduce() -> Reproduction:
    """Compare Tables 2 to 10 with the counted costs."""
    networks = [
        replace(comparison, name=f"{row.name} ({', '.join(map(str, row.tables))})")
        for row in ROWS
        for comparison in compare(row.spec, cost_of(row.spec))
    ]
    return Reproduction(
        table_2=compare_layer_types(cost_of(ModelSpec())),
        table_3=compare_layers(),
        tables_4_to_9=tuple(networks),
        table_10=tuple(comparison for row in DOGS for comparison in compare(row.spec, cost_of(row.spec))),
    )


def compare(spec: ModelSpec, cost: Cost) -> tuple[Comparison, ...]:
    """Compare a network's counts with the paper's figures.

    Returns an empty tuple if the paper does not have the network with this number of classes.
    """
    row = printed_row(spec)
    if row is None:
        return ()
    return (
        _compare(row.name, "Mult-Adds", row.mult_adds, cost.mult_adds / 1e6),
        _compare(row.name, "parameters", row.parameters, cost.weights / 1e6),
    )


def compare_layer_types(cost: Cost) -> tuple[Comparison, ...]:
    """Compare the shares by layer type in `cost`, that of 1.0 MobileNet-224, with Table 2."""
    counted = {share.type: share for share in cost.by_type()}
    comparisons = []
    for name, (mult_adds, parameters) in LAYER_TYPES.items():
        share = counted[name]
        comparisons.append(_compare(name, "Mult-Adds", mult_adds, share.mult_adds_share * 100))
        comparisons.append(_compare(name, "parameters", parameters, share.weights_share * 100))
    return tuple(comparisons)


def compare_layers() -> tuple[Comparison, ...]:
    """Compare the 14x14x512 layer of Table 3, counted in the networks that have it, with the printed figures."""
    comparisons = []
    for name, mult_adds, parameters, spec in LAYERS:
        layers = [layer for layer in cost_of(spec).layers if layer.name.startswith(_LAYER)]
        comparisons.append(_compare(name, "Mult-Adds", mult_adds, sum(layer.mult_adds for layer in layers) / 1e6))
        comparisons.append(_compare(name, "parameters", parameters, sum(layer.weights for layer in layers) / 1e6))
    return tuple(comparisons)


def _compare(name: str, what: str, printed: str, counted: float) -> Comparison:
    agrees = agrees_with(printed, counted)
    reason = None
    if not agrees:
        reason = _REASONS.get((name, what), "unexplained")
    return Comparison(name, what, printed, counted, agrees, reason)


def agrees_with(printed: str, counted: float) -> bool:
    """Return whether `counted`, rounded or truncated to the digits of `printed`, equals it.

    The paper does both: 568.7 is printed as 569, 149.5 as 149.
    """
    decimals = len(printed.partition(".")[2])
    scaled = counted * 10**decimals
    return int(printed.replace(".", "")) in (round(scaled), math.floor(scaled))


def _same_network(a: ModelSpec, b: ModelSpec) -> bool:
    return (a.family, a.variant, a.alpha, a.resolution, a.widths) == (
        b.family, b.variant, b.alpha, b.resolution, b.widths,
    )  # fmt: skip
