"""`mbbench compress`: the stages that retrain or prune a network, in the order of what they gain.

1. Prune channels, to a share of the Mult-Adds or to the largest network within a latency budget (`prune`).
2. Fine-tune after pruning, or to distill from a teacher (`weights.finetune`).
3. Fine-tune with quantization simulated, for INT8 (`qat`).

Each stage is optional and stores its weights in the cache, so that an interrupted run resumes. A new compression method
is a module in `compress/`, a stage here (a function like `_prune`, with a version in its cache key, called by
`compress`), a field of `Request`, and an option in `cli/train.py`. Post-training quantization is not a stage: `search`
runs when an INT8 artifact is made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mbbench import cache, weights
from mbbench.compress import calibrate, qat, quantize
from mbbench.compress import prune as pruning
from mbbench.data import Dataset
from mbbench.errors import UsageError
from mbbench.models.cost import cost_of
from mbbench.spec import ModelSpec, content_key
from mbbench.weights import Weights
from mbbench.weights.recipe import FINE_TUNER, TRAINER, FineTuning, Progress

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

_IMPORTANCE_IMAGES = 512  # training images that channel importance is computed from
_BISECTIONS = 5  # of the interval that holds the share of Mult-Adds within the latency budget
_PRUNING_VERSION, _QAT_VERSION = 1, 1  # raise one when its stage makes other weights from the same input

OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The stages to run, and how to fine-tune.

    `mult_adds`: the share of the Mult-Adds to keep, 0 to 1. `max_latency_ms`: keep as many Mult-Adds as this median
    latency allows. `teacher`: distill from it. `qat`: finish with quantization-aware fine-tuning.
    """

    mult_adds: float | None = None
    max_latency_ms: float | None = None
    teacher: Weights | None = None
    qat: bool = False
    recipe: FineTuning
    qat_recipe: FineTuning


def compress(
    start: Weights, train: Dataset, request: Request, latency_ms: Callable[[ModelSpec], float], on_progress: OnProgress
) -> Weights:
    """Run the requested stages on `start` and return the weights of the last.

    `latency_ms` measures the median latency of a network of a spec, whatever its weights, in the precision that the
    budget is for. Raises `UsageError` if the
    network cannot be pruned, the classes differ, no stage is requested, or the latency budget cannot be met.
    """
    if start.spec.family != "mobilenet_v1" or start.spec.variant == "full-conv":
        raise UsageError(
            f"only MobileNetV1 with depthwise separable blocks can be compressed (got {start.spec.label})",
            "give --weights of such a network",
        )
    if start.spec.classes != train.classes:
        raise UsageError(
            f"the weights have {start.spec.classes} classes, the data has {train.classes}",
            "give the data that they were trained on, or weights trained on this data",
        )
    if request.teacher is not None and request.teacher.spec.classes != start.spec.classes:
        raise UsageError(
            f"the teacher has {request.teacher.spec.classes} classes, the student has {start.spec.classes}",
            "give a teacher with the same classes",
        )
    require_stages(request.mult_adds, request.max_latency_ms, request.teacher, qat=request.qat)
    share = request.mult_adds
    if request.max_latency_ms is not None:
        share = _share_within_budget(start, train, request.max_latency_ms, latency_ms)
    compressed = start if share is None else _prune(start, train, share)
    if share is not None or request.teacher is not None:
        compressed = _finetune(compressed, train, request, on_progress)
    return _qat(compressed, train, request.qat_recipe, on_progress) if request.qat else compressed


def require_stages(prune: object, max_latency: object, teacher: object, *, qat: bool) -> None:
    """Raise `UsageError` if these options (None: absent) request no stage, or two that exclude each other."""
    if prune is not None and max_latency is not None:
        raise UsageError("--prune and --max-latency exclude each other", "give one of them")
    if prune is None and max_latency is None and teacher is None and not qat:
        raise UsageError("nothing to do: no compression was chosen", "give --prune, --max-latency, --teacher or --qat")


def _prune(start: Weights, train: Dataset, share: float) -> Weights:
    """Return the weights with `share` (0 to 1) of the Mult-Adds left, not fine-tuned."""
    key = content_key("prune", share, train.key(start.spec.family), _PRUNING_VERSION)

    def make() -> tuple[dict[str, Tensor], ModelSpec]:
        channels = pruning.choose(_importance(start, train), cost_of(start.spec).layers, share)
        return pruning.prune(start.build().state_dict(), channels), pruning.pruned_spec(start.spec, channels)

    return weights.derived(start, key, make)


def _importance(start: Weights, train: Dataset) -> list[NDArray[np.float64]]:
    """Return each channel's importance (`prune.importance`) on a seeded subset of the training images."""
    import numpy as np
    import torch

    from mbbench.data.feed import to_float

    images, labels = train.arrays()
    subset = np.sort(np.random.default_rng(0).permutation(len(images))[:_IMPORTANCE_IMAGES])
    pixels = torch.from_numpy(to_float(images[subset], train.preprocessing_for(start.spec.family)))
    return pruning.importance(start.build(), pixels, torch.from_numpy(labels[subset]))


def _share_within_budget(
    start: Weights, train: Dataset, budget_ms: float, latency_ms: Callable[[ModelSpec], float]
) -> float | None:
    """Return the largest share of Mult-Adds within the budget, or None if the whole network is within it.

    Bisection over measured networks finds the share. Raises `UsageError` if none of them is within the budget.
    """
    if latency_ms(start.spec) <= budget_ms:
        return None
    scores, layers = _importance(start, train), cost_of(start.spec).layers
    low, high, best = 0.0, 1.0, None
    for _ in range(_BISECTIONS):
        share = (low + high) / 2
        try:
            spec = pruning.pruned_spec(start.spec, pruning.choose(scores, layers, share))
        except UsageError:  # the share is too small for a chunk of channels in every layer
            low = share
            continue
        if latency_ms(spec) <= budget_ms:
            low = best = share
        else:
            high = share
    if best is None:
        raise UsageError(
            f"no pruned {start.spec.label} has a median latency of at most {budget_ms:g} ms here",
            "raise --max-latency, or start from a smaller --alpha or --res",
        )
    return best


def _finetune(start: Weights, train: Dataset, request: Request, on_progress: OnProgress) -> Weights:
    """Return the weights after training by `request.recipe`, distilled from the teacher if there is one."""
    teacher, recipe = request.teacher, request.recipe
    versions = (TRAINER, FINE_TUNER)
    key = content_key("finetune", recipe, train.key(start.spec.family), teacher and teacher.info.key, versions)

    def make() -> tuple[dict[str, Tensor], ModelSpec]:
        from mbbench.weights.finetune import fine_tune

        module = start.build()
        images, labels = train.arrays()
        fine_tune(
            module, images, labels, train.preprocessing_for(start.spec.family), recipe,
            teacher=None if teacher is None else teacher.build(),
            on_progress=on_progress,
            partial=cache.root() / "weights" / f"{content_key(start.info.key, key)}.partial",
        )  # fmt: skip
        return module.state_dict(), start.spec

    return weights.derived(start, key, make)


def _qat(start: Weights, train: Dataset, recipe: FineTuning, on_progress: OnProgress) -> Weights:
    """Return the weights after quantization-aware fine-tuning, with the ranges of a calibration held fixed."""
    key = content_key("qat", recipe, train.key(start.spec.family), TRAINER, FINE_TUNER, _QAT_VERSION)

    def make() -> tuple[dict[str, Tensor], ModelSpec]:
        from mbbench.graphs.onnx import to_onnx
        from mbbench.models import fold_batch_norm
        from mbbench.weights.finetune import fine_tune

        module, (images, labels) = start.build(), train.arrays()
        preprocessing = train.preprocessing_for(start.spec.family)
        folded = fold_batch_norm(module)
        graph = to_onnx(folded, start.spec.resolution)
        data = calibrate.split_for_calibration(
            images, labels, preprocessing, train.name, train.fingerprint, labeled=True
        )
        ranges = calibrate.ranges(calibrate.statistics(graph, data.images), "mse")
        inputs = {layer: ranges[name] for layer, name in quantize.layer_inputs(graph).items()}
        with qat.fake_quantized(folded, inputs):
            fine_tune(
                folded, images, labels, preprocessing, recipe, on_progress=on_progress,
                partial=cache.root() / "weights" / f"{content_key(start.info.key, key)}.partial",
            )  # fmt: skip
        return qat.unfold(folded, module), start.spec

    return weights.derived(start, key, make)
