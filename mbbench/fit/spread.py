"""Networks spread over a grid, whose measurement predicts the others well."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mbbench.spec import ModelSpec


def spread(models: Sequence[ModelSpec], count: int) -> list[ModelSpec]:
    """Return `count` of `models`, as far from each other as possible in the logarithms of alpha and resolution.

    The corners come first; then, again and again, the network farthest from all chosen ones. All are returned if there
    are no more than `count`.
    """
    places = {model: (math.log(model.alpha), math.log(model.resolution)) for model in models}
    spans = [max(axis) - min(axis) or 1.0 for axis in zip(*places.values(), strict=True)]

    def distance(a: ModelSpec, b: ModelSpec) -> float:
        return math.hypot(*((x - y) / span for x, y, span in zip(places[a], places[b], spans, strict=True)))

    chosen = corners(models)[:count]
    while len(chosen) < min(count, len(models)):
        chosen.append(max(models, key=lambda model: min(distance(model, other) for other in chosen)))
    return chosen


def corners(models: Sequence[ModelSpec]) -> list[ModelSpec]:
    """Return the networks of smallest and largest alpha and resolution, without repetitions."""
    alphas = [model.alpha for model in models]
    sides = [model.resolution for model in models]
    wanted = [(alpha, side) for alpha in (min(alphas), max(alphas)) for side in (min(sides), max(sides))]
    places = {(model.alpha, model.resolution): model for model in models}
    return [places[place] for place in dict.fromkeys(wanted) if place in places]
