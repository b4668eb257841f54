"""`mbbench compress`: the stages of compression in the order in which they pay, each kept, so that a run can go on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mbbench import cache, weights
from mbbench.compress import calibrate, qat, quantize, search
from mbbench.compress import prune as pruning
from mbbench.data import Dataset
from mbbench.errors import UsageError
from mbbench.models import normalization
from mbbench.models.cost import cost_of
from mbbench.spec import ModelSpec, content_key
from mbbench.weights import Weights
from mbbench.weights.recipe import TRAINER, Progress, Recipe

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

_JUDGED = 512  # training images that say which channels matter
_STEPS = 5  # halvings of the interval in which the latency budget is sought
_PRUNING, _QAT = 1, 1  # raise one when that stage makes other weights of the same input

Announce = Callable[[Progress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to do: keep a share of the `mult_adds`, or as many as `max_latency_ms` allows; fine-tune; for INT8 too."""

    mult_adds: float | None = None
    max_latency_ms: float | None = None
    teacher: Weights | None = None
    qat: bool = False
    recipe: Recipe
    qat_recipe: Recipe


def compress(
    start: Weights, train: Dataset, request: Request, latency_ms: Callable[[ModelSpec], float], announce: Announce
) -> Weights:
    """The weights after every stage asked for. `latency_ms` measures a network of a spec, whatever its weights.

    Raises `UsageError` for what cannot be pruned or was not asked to be changed at all.
    """
    if start.spec.family != "mobilenet_v1" or start.spec.variant == "full-conv":
        raise UsageError(
            f"{start.spec.label} cannot be compressed by training", "give a MobileNetV1 with depthwise blocks"
        )
    if start.spec.classes != train.classes:
        raise UsageError(
            f"the weights know {start.spec.classes} classes, the data has {train.classes}",
            "give the data they were trained on, or weights trained on this data",
        )
    if request.teacher is not None and request.teacher.spec.classes != start.spec.classes:
        raise UsageError(
            f"the teacher knows {request.teacher.spec.classes} classes, the student {start.spec.classes}",
            "give a teacher of the same classes",
        )
    if request.mult_adds is not None and request.max_latency_ms is not None:
        raise UsageError("there are two budgets to prune to", "give --prune or --max-latency")
    share = request.mult_adds
    if request.max_latency_ms is not None:
        share = _share_within(start, train, request.max_latency_ms, latency_ms)
    elif share is None and request.teacher is None and not request.qat:
        raise UsageError("nothing is to be done", "give --prune, --max-latency, --teacher or --qat")
    found = start if share is None else _prune(start, train, share)
    if share is not None or request.teacher is not None:
        found = _finetune(found, train, request, announce)
    return _qat(found, train, request.qat_recipe, announce) if request.qat else found


def _prune(start: Weights, train: Dataset, share: float) -> Weights:
    """Without fine-tuning."""
    key = content_key("prune", share, train.fingerprint, _PRUNING)

    def make() -> tuple[dict[str, Tensor], ModelSpec]:
        keep = pruning.choose(_importance(start, train), cost_of(start.spec).layers, share)
        return pruning.prune(start.build().state_dict(), keep), pruning.pruned_spec(start.spec, keep)

    return weights.derived(start, key, make)


def _importance(start: Weights, train: Dataset) -> list[NDArray[np.float64]]:
    import numpy as np
    import torch

    from mbbench.data.feed import to_float

    images, labels = train.arrays()
    chosen = np.sort(np.random.default_rng(0).permutation(len(images))[:_JUDGED])
    pixels = torch.from_numpy(to_float(images[chosen], normalization(start.spec.family)))
    return pruning.importance(start.build(), pixels, torch.from_numpy(labels[chosen]))


def _share_within(
    start: Weights, train: Dataset, budget_ms: float, latency_ms: Callable[[ModelSpec], float]
) -> float | None:
    """The most Mult-Adds within the budget, found by bisection over networks that are measured; None: all of them."""
    if latency_ms(start.spec) <= budget_ms:
        return None
    scores, layers = _importance(start, train), cost_of(start.spec).layers
    low, high, best = 0.0, 1.0, None
    for _ in range(_STEPS):
        share = (low + high) / 2
        try:
            spec = pruning.pruned_spec(start.spec, pruning.choose(scores, layers, share))
        except UsageError:
            low = share
            continue
        if latency_ms(spec) <= budget_ms:
            low = best = share
        else:
            high = share
    if best is None:
        raise UsageError(
            f"no pruned {start.spec.label} takes at most {budget_ms:g} ms here",
            "raise --max-latency, or start from a smaller --alpha or --res",
        )
    return best


def _finetune(start: Weights, train: Dataset, request: Request, announce: Announce) -> Weights:
    teacher, recipe = request.teacher, request.recipe
    key = content_key("finetune", recipe, train.fingerprint, teacher and teacher.info.key, TRAINER)

    def make() -> tuple[dict[str, Tensor], ModelSpec]:
        from mbbench.weights.train import fit

        module = start.build()
        images, labels = train.arrays()
        fit(
            module, images, labels, normalization(start.spec.family), recipe,
            teacher=None if teacher is None else teacher.build(),
            on_progress=announce,
            partial=cache.root() / "weights" / f"{content_key(start.info.key, key)}.partial",
        )  # fmt: skip
        return module.state_dict(), start.spec

    return weights.derived(start, key, make)


def _qat(start: Weights, train: Dataset, recipe: Recipe, announce: Announce) -> Weights:
    key = content_key("qat", recipe, train.fingerprint, TRAINER, _QAT)

    def make() -> tuple[dict[str, Tensor], ModelSpec]:
        from mbbench.graphs.onnx import to_onnx
        from mbbench.models import fold_batch_norm
        from mbbench.weights.train import fit

        module, (images, labels) = start.build(), train.arrays()
        normal = normalization(start.spec.family)
        folded = fold_batch_norm(module)
        graph = to_onnx(folded, start.spec.resolution)
        data = search.calibration(images, labels, normal, train.name, train.fingerprint, labelled=True)
        ranges = calibrate.ranges(calibrate.statistics(graph, data.images), "mse")
        inputs = {layer: ranges[name] for layer, name in quantize.inputs(graph).items()}
        with qat.quantized(folded, inputs):
            fit(
                folded, images, labels, normal, recipe, on_progress=announce,
                partial=cache.root() / "weights" / f"{content_key(start.info.key, key)}.partial",
            )  # fmt: skip
        return qat.unfold(folded, module), start.spec

    return weights.derived(start, key, make)
