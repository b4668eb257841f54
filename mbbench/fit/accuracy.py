"""The top-1 of networks between those of known accuracy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from mbbench.models import paper
from mbbench.spec import ModelSpec, Precision

Source = Literal["published", "measured", "interpolated", "extrapolated"]
_FEWEST = 3  # measured accuracies that a plane needs


@dataclass(frozen=True, slots=True)
class Top1:
    """Top-1, 0 to 1, and where it is from."""

    share: float
    source: Source


def published(models: Sequence[ModelSpec], precision: Precision) -> list[Top1 | None]:
    """Return the ImageNet top-1 of the released checkpoints, or None in a precision that has none.

    Between the sixteen checkpoints it is interpolated, and beyond them extrapolated, linearly in the logarithms of
    alpha and resolution: of two networks with the same Mult-Adds, the wider one is better, by up to 2 points.
    """
    table = {"fp32": {place: top1 for place, (top1, _) in paper.CHECKPOINTS.items()}, "int8": paper.CHECKPOINTS_INT8}
    percents = table.get(precision)
    if percents is None:
        return [None] * len(models)
    from scipy.interpolate import RegularGridInterpolator

    alphas, sides = (sorted({place[axis] for place in percents}) for axis in (0, 1))
    values = [[percents[alpha, int(side)] for side in sides] for alpha in alphas]
    axes = ([math.log(alpha) for alpha in alphas], [math.log(side) for side in sides])
    plane = RegularGridInterpolator(axes, values, bounds_error=False, fill_value=None)
    shares = plane([_place(model) for model in models]) / 100
    return [
        Top1(_clipped(share), _source((model.alpha, model.resolution) in percents, "published", model, alphas, sides))
        for model, share in zip(models, shares, strict=True)
    ]


def measured(models: Sequence[ModelSpec], known: Mapping[ModelSpec, float]) -> list[Top1 | None]:
    """Return the measured top-1 in `known`, and for other networks that of a plane through it.

    The plane is over the logarithms of alpha and resolution, by least squares; with fewer than three measured networks
    the others have None.
    """
    import numpy as np

    if len(known) < _FEWEST:
        return [Top1(known[model], "measured") if model in known else None for model in models]
    rows = np.array([(1.0, *_place(model)) for model in known])
    plane, *_ = np.linalg.lstsq(rows, np.array(list(known.values())))
    alphas, sides = sorted({model.alpha for model in known}), sorted({model.resolution for model in known})
    return [
        Top1(known[model], "measured")
        if model in known
        else Top1(_clipped(plane @ (1.0, *_place(model))), _source(False, "measured", model, alphas, sides))
        for model in models
    ]


def _place(model: ModelSpec) -> tuple[float, float]:
    return math.log(model.alpha), math.log(model.resolution)


def _clipped(share: float) -> float:
    return min(max(float(share), 0.0), 1.0)


def _source(is_known: bool, known: Source, model: ModelSpec, alphas: Sequence[float], sides: Sequence[float]) -> Source:
    if is_known:
        return known
    inside = alphas[0] <= model.alpha <= alphas[-1] and sides[0] <= model.resolution <= sides[-1]
    return "interpolated" if inside else "extrapolated"
