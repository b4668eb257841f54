"""What was published: the MobileNet paper's tables and claims, and the accuracies of the released checkpoints.

Howard et al. 2017, arXiv 1704.04861. Tables 2 and 4 to 9 below were compared, cell by cell, with the text of a copy of
the paper. The checkpoints' accuracies are TF-slim's (research/slim/nets/mobilenet_v1.md); Keras applications ship the
same weights. These figures are always shown as published, never as measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from mbbench.models.cost import Cost, cost_of
from mbbench.spec import ModelSpec, Precision


@dataclass(frozen=True, slots=True)
class Published:
    """One row: ImageNet top-1 in percent, Mult-Adds and parameters in millions as printed; `spec` if built here."""

    tables: tuple[int, ...]
    name: str
    top1_percent: float
    mult_adds: str
    parameters: str
    spec: ModelSpec | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """A counted figure beside the printed one, in the printed one's unit. `reason` says why they differ."""

    name: str  # of the network or layer type
    what: str  # Mult-Adds or parameters
    printed: str
    counted: float
    agrees: bool
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproduction:
    """The paper's tables of costs, as far as their networks are built here, beside what is counted."""

    table_2: tuple[Comparison, ...]
    tables_4_to_9: tuple[Comparison, ...]


VGG16 = ModelSpec(family="vgg16")
GOOGLENET = ModelSpec(family="googlenet")

ROWS = (
    Published((4,), "Conv MobileNet", 71.7, "4866", "29.3", ModelSpec(variant="full-conv")),
    Published((4, 6, 7, 8), "1.0 MobileNet-224", 70.6, "569", "4.2", ModelSpec()),
    Published((5, 6), "0.75 MobileNet-224", 68.4, "325", "2.6", ModelSpec(alpha=0.75)),
    Published((5,), "Shallow MobileNet", 65.3, "307", "2.9", ModelSpec(variant="shallow")),
    Published((6,), "0.5 MobileNet-224", 63.7, "149", "1.3", ModelSpec(alpha=0.5)),
    Published((6,), "0.25 MobileNet-224", 50.6, "41", "0.5", ModelSpec(alpha=0.25)),
    Published((7,), "1.0 MobileNet-192", 69.1, "418", "4.2", ModelSpec(resolution=192)),
    Published((7,), "1.0 MobileNet-160", 67.2, "290", "4.2", ModelSpec(resolution=160)),
    Published((7,), "1.0 MobileNet-128", 64.4, "186", "4.2", ModelSpec(resolution=128)),
    Published((8,), "GoogleNet", 69.8, "1550", "6.8", GOOGLENET),
    Published((8,), "VGG 16", 71.5, "15300", "138", VGG16),
    Published((9,), "0.50 MobileNet-160", 60.2, "76", "1.32", ModelSpec(alpha=0.5, resolution=160)),
    Published((9,), "Squeezenet", 57.5, "1700", "1.25", None),
    Published((9,), "AlexNet", 57.2, "720", "60", None),
)

# Table 2: layer type -> share of the Mult-Adds, share of the parameters, in percent, of 1.0 MobileNet-224.
LAYER_TYPES: Mapping[str, tuple[str, str]] = {
    "Conv 1x1": ("94.86", "74.59"),
    "Conv DW 3x3": ("3.06", "1.06"),
    "Conv 3x3": ("1.19", "0.02"),
    "Fully connected": ("0.18", "24.33"),
}

# Section 4.2: how many times 1.0 MobileNet-224 is smaller (parameters) and cheaper (Mult-Adds) than each.
CLAIMS: Mapping[str, tuple[str, str]] = {
    "vgg16": ("32x", "27x"),
    "googlenet": (">1x", ">2.5x"),
}

# (alpha, resolution) -> ImageNet top-1 and top-5 in percent of the released checkpoints.
CHECKPOINTS: Mapping[tuple[float, int], tuple[float, float]] = {
    (1.0, 224): (70.9, 89.9), (1.0, 192): (70.0, 89.2), (1.0, 160): (68.0, 87.7), (1.0, 128): (65.2, 85.8),
    (0.75, 224): (68.4, 88.2), (0.75, 192): (67.2, 87.3), (0.75, 160): (65.3, 86.0), (0.75, 128): (62.1, 83.9),
    (0.5, 224): (63.3, 84.9), (0.5, 192): (61.7, 83.6), (0.5, 160): (59.1, 81.9), (0.5, 128): (56.3, 79.4),
    (0.25, 224): (49.8, 74.2), (0.25, 192): (47.7, 72.3), (0.25, 160): (45.5, 70.3), (0.25, 128): (41.5, 66.3),
}  # fmt: skip

# (alpha, resolution) -> ImageNet top-1 in percent of the checkpoints that were trained for 8 bits (same page).
CHECKPOINTS_INT8: Mapping[tuple[float, int], float] = {
    (1.0, 224): 69.7, (1.0, 192): 69.0, (1.0, 160): 67.3, (1.0, 128): 64.0,
    (0.75, 224): 67.9, (0.75, 192): 66.2, (0.75, 160): 63.9, (0.75, 128): 59.8,
    (0.5, 224): 62.2, (0.5, 192): 60.4, (0.5, 160): 57.7, (0.5, 128): 54.9,
    (0.25, 224): 48.2, (0.25, 192): 45.8, (0.25, 160): 43.5, (0.25, 128): 39.9,
}  # fmt: skip

_REASONS: Mapping[tuple[str, str], str] = {
    ("Conv MobileNet", "Mult-Adds"): "4866.3 without the classifier's 1.0, which the paper seems to have left out here",
    ("GoogleNet", "Mult-Adds"): "Torchvision's, built here, has 3x3 for 5x5 convolutions; with 5x5 it would be 1583",
    ("GoogleNet", "parameters"): "Torchvision's, built here, has 3x3 for 5x5 convolutions; with 5x5 it would be 6.99",
    ("VGG 16", "Mult-Adds"): "15347 without the fully connected layers: the usual 15.3 billion leaves them out",
    ("Conv 3x3", "Mult-Adds"): "Digits swapped in print, it seems: with 1.91 the paper's column sums to 100",
}


def row_of(spec: ModelSpec) -> Published | None:
    """The paper's row of this network, whatever its number of classes."""
    return next((row for row in ROWS if row.spec is not None and _same_network(row.spec, spec)), None)


def published_top1(spec: ModelSpec, precision: Precision = "fp32") -> tuple[float, str] | None:
    """ImageNet top-1 in percent and its source: the released checkpoint's, else the paper's. None for pruned widths."""
    if spec.widths is not None or precision not in ("fp32", "int8"):
        return None
    if precision == "int8":
        own = spec.family == "mobilenet_v1" and spec.variant == "standard"
        percent = CHECKPOINTS_INT8.get((spec.alpha, spec.resolution)) if own else None
        return None if percent is None else (percent, "released checkpoint, trained for 8 bits")
    if spec.family == "mobilenet_v1" and spec.variant == "standard":
        checkpoint = CHECKPOINTS.get((spec.alpha, spec.resolution))
        if checkpoint is not None:
            return checkpoint[0], "released checkpoint"
    row = row_of(spec)
    if row is None and spec.family != "mobilenet_v1":
        row = row_of(VGG16 if spec.family == "vgg16" else GOOGLENET)
    return None if row is None else (row.top1_percent, f"paper, Table {row.tables[-1]}")


def reproduce() -> Reproduction:
    models = [
        replace(comparison, name=f"{row.name} ({', '.join(map(str, row.tables))})")
        for row in ROWS
        if row.spec is not None
        for comparison in compare(row.spec, cost_of(row.spec))
    ]
    return Reproduction(table_2=compare_layer_types(cost_of(ModelSpec())), tables_4_to_9=tuple(models))


def compare(spec: ModelSpec, cost: Cost) -> tuple[Comparison, ...]:
    """The counts of a network that the paper has, beside its figures; empty for others and without 1000 classes."""
    row = row_of(spec)
    if row is None or spec.classes != 1000:
        return ()
    return (
        _compare(row.name, "Mult-Adds", row.mult_adds, cost.mult_adds / 1e6),
        _compare(row.name, "parameters", row.parameters, cost.weights / 1e6),
    )


def compare_layer_types(cost: Cost) -> tuple[Comparison, ...]:
    """The shares by layer type of 1.0 MobileNet-224 beside Table 2."""
    counted = {share.type: share for share in cost.by_type()}
    figures = []
    for name, (mult_adds, parameters) in LAYER_TYPES.items():
        share = counted[name]
        figures.append(_compare(name, "Mult-Adds", mult_adds, share.mult_adds_share * 100))
        figures.append(_compare(name, "parameters", parameters, share.weights_share * 100))
    return tuple(figures)


def _compare(name: str, what: str, printed: str, counted: float) -> Comparison:
    agrees = agrees_with(printed, counted)
    reason = None
    if not agrees:
        reason = _REASONS.get((name, what), "unexplained")
    return Comparison(name, what, printed, counted, agrees, reason)


def agrees_with(printed: str, counted: float) -> bool:
    """Whether `counted`, rounded or cut off at the last printed digit, is `printed`; the paper does both (569, 149)."""
    decimals = len(printed.partition(".")[2])
    scaled = counted * 10**decimals
    return int(printed.replace(".", "")) in (round(scaled), math.floor(scaled))


def _same_network(a: ModelSpec, b: ModelSpec) -> bool:
    return (a.family, a.variant, a.alpha, a.resolution) == (b.family, b.variant, b.alpha, b.resolution)
