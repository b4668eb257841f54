"""Deterministic training of a small classifier on a CPU."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial as bind
from itertools import chain, islice
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from mbbench import cache
from mbbench.errors import UsageError
from mbbench.weights.recipe import Progress, Recipe

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Generator, Tensor, nn

    from mbbench.spec import ModelSpec, Preprocessing
    from mbbench.weights.finetune import BestState

_BATCH_NORM_BATCHES = 64  # batches over which the final statistics of batch norm are averaged
_SPIN_COUNT = "GOMP_SPINCOUNT"  # libgomp reads it once, when torch loads libgomp


def train(
    spec: ModelSpec,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    recipe: Recipe,
    on_progress: Callable[[Progress], None] | None = None,
    partial: Path | None = None,
    preprocessing: Preprocessing | None = None,
) -> dict[str, Tensor]:
    """Train `build(spec)` on uint8 images (N, R, R, 3) and return its state dict.

    The result is the same for the same machine, torch version and number of threads. torch's global generator is not
    changed. `preprocessing`: None: the family's default. For `partial`, see `fit`. Raises `UsageError` for fewer than
    two images, which batch norm needs.
    """
    _import_torch()
    import torch

    from mbbench.models import build, default_preprocessing

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        module = build(spec)
    usual = default_preprocessing(spec.family)
    fit(module, images, labels, preprocessing or usual, recipe, on_progress=on_progress, partial=partial)
    return {name: tensor.detach().contiguous() for name, tensor in module.state_dict().items()}


def fit(
    module: nn.Module,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    preprocessing: Preprocessing,
    recipe: Recipe,
    *,
    teacher: nn.Module | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    partial: Path | None = None,
    rows: NDArray[np.intp] | None = None,
    passes: int = 1,
    best: BestState | None = None,
) -> None:
    """Train `module` in place from its present weights, and leave it in evaluation mode.

    With a `teacher`, the divergence from its softened outputs (`_distilled`) is part of the loss, with the weight
    `recipe.distillation`. `partial` is a file for the state after each epoch; interrupted training resumes from it and
    arrives at the same weights. `rows` are the images to train on, by default all; an epoch is `passes` passes over
    them. With `best`, the result is the state that it prefers of those before the first epoch and after each. Raises
    `UsageError` for fewer than two images, or if `partial` is damaged; it is then removed.
    """
    import numpy as np

    rows = np.arange(len(images)) if rows is None else rows
    if len(rows) < 2:
        raise UsageError(
            f"training needs at least 2 images: {len(rows)}", "give more images, preferably hundreds per class"
        )
    import torch
    from torch.nn import functional

    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    generator = torch.Generator().manual_seed(recipe.seed)
    batches = bind(training_batches, images, labels, rows, preprocessing, recipe.batch_size, generator)
    steps = recipe.epochs * passes * steps_per_pass(len(rows), recipe)
    optimizer = torch.optim.AdamW(module.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, total_steps=steps)
    stateful: dict[str, Any] = {"module": module, "optimizer": optimizer, "schedule": schedule}
    if best is not None:
        stateful["best"] = best
    completed = _resume(partial, stateful, generator)
    if best is not None and not completed:
        best.consider(module)
    step = completed * (steps // recipe.epochs)
    for epoch in range(completed + 1, recipe.epochs + 1):
        module.train()
        for x, y in chain.from_iterable(batches(recipe.shift) for _ in range(passes)):
            logits = module(x)
            if teacher is None:
                loss = functional.cross_entropy(logits, y, label_smoothing=recipe.label_smoothing)
            else:
                loss = _distilled(logits, y, teacher, x, recipe)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            step += 1
            if on_progress is not None:
                rounded = round(loss.item(), 4)
                on_progress(Progress(step=step, steps=steps, epoch=epoch, epochs=recipe.epochs, loss=rounded))
        if best is not None:
            best.consider(module)
        if partial is not None and epoch < recipe.epochs:
            states = {name: part.state_dict() for name, part in stateful.items()}
            with cache.atomic(partial) as temporary:
                torch.save({**states, "generator": generator.get_state(), "epoch": epoch}, temporary)
    if best is None:
        recompute_batch_norm(module, batches(0.0))
    else:
        best.restore(module)
    module.eval()
    if partial is not None:
        partial.unlink(missing_ok=True)


def _resume(partial: Path | None, stateful: Mapping[str, Any], generator: Generator) -> int:
    """Restore the state in `partial` and return the number of completed epochs, 0 if there is no such file.

    Raises `UsageError` if the file is damaged; it is removed.
    """
    import torch

    if partial is None or not partial.exists():
        return 0
    try:
        saved = torch.load(partial, weights_only=True)
        for name, part in stateful.items():
            part.load_state_dict(saved[name])
        generator.set_state(saved["generator"])
        return int(saved["epoch"])
    except (RuntimeError, OSError, EOFError, KeyError, ValueError, UnpicklingError):
        partial.unlink(missing_ok=True)
        raise UsageError(
            f"the saved state of the training was damaged and has been removed: {partial}", "start the training again"
        ) from None


def _distilled(logits: Tensor, labels: Tensor, teacher: nn.Module, x: Tensor, recipe: Recipe) -> Tensor:
    """Return the loss of `logits` (N, classes) with the teacher's part (Hinton et al. 2015, arXiv 1503.02531).

    The Kullback-Leibler divergence of the softened outputs from the teacher's is multiplied by the square of the
    temperature, which preserves the scale of the gradients. Where the teacher misses the label, the label alone counts:
    a teacher with few images to learn from would otherwise teach its mistakes.
    """
    import torch
    from torch.nn import functional

    with torch.no_grad():
        answers = teacher(x)
    target = functional.log_softmax(answers / recipe.temperature, dim=1)
    softened = functional.log_softmax(logits / recipe.temperature, dim=1)
    divergence = functional.kl_div(softened, target, reduction="none", log_target=True).sum(dim=1)
    of_labels = functional.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing, reduction="none")
    weight = recipe.distillation * (answers.argmax(dim=1) == labels)
    loss: Tensor = ((1 - weight) * of_labels + weight * recipe.temperature**2 * divergence).mean()
    return loss


def _import_torch() -> None:
    """Import torch so that its idle OpenMP threads soon sleep. Child processes do not inherit the setting.

    By default, idle threads spin for milliseconds between operators, on cores that other processes need. Two concurrent
    trainings of 0.25/96 (alpha/resolution) on two cores took 50 to 207 s each by default, and 34 to 45 s with this
    setting. A single training of 0.5/128 becomes a tenth slower: 36 to 41 s instead of 32 to 34 s.
    """
    previous = os.environ.get(_SPIN_COUNT)
    os.environ.setdefault(_SPIN_COUNT, "1000")
    try:
        import torch  # noqa: F401
    finally:
        if previous is None:
            del os.environ[_SPIN_COUNT]


def recompute_batch_norm(module: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Set batch norm's statistics to their mean over `batches` under the present weights, and leave training mode on.

    At most 64 batches are taken (Wu and Johnson 2021, section 3). The running averages from training still depend on
    earlier weights. On digits at 0.25/96, top-1 after one epoch was 10 % with them and 35 % with the recomputed
    statistics; from four epochs on, there is no difference.
    """
    import torch
    from torch import nn

    module.train()
    layers = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the statistics become the mean over all batches
    if not layers:
        return
    with torch.no_grad():
        for x, _ in islice(batches, _BATCH_NORM_BATCHES):
            module(x)


def steps_per_pass(images: int, recipe: Recipe) -> int:
    """Return how many batches `training_batches` yields."""
    return max(images // recipe.batch_size, 1)


def training_batches(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    rows: NDArray[np.intp],
    preprocessing: Preprocessing,
    batch_size: int,
    generator: Generator,
    shift: float,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield one pass over `rows` in a random order: (normalized images, labels).

    A smaller last batch is left out, because batch norm computes its statistics from a batch. If there are fewer
    images than `batch_size`, they form the only batch.
    """
    import numpy as np
    import torch

    from mbbench.data.feed import to_float

    max_shift = round(shift * images.shape[1])  # pixels
    order = rows[torch.randperm(len(rows), generator=generator).numpy()]
    for start in range(0, max(len(order) - batch_size, 0) + 1, batch_size):
        chosen = np.sort(order[start : start + batch_size])
        x = torch.from_numpy(to_float(images[chosen], preprocessing))
        if max_shift:
            dy, dx = torch.randint(-max_shift, max_shift + 1, (2,), generator=generator).tolist()
            x = x.roll((dy, dx), (2, 3))
        yield x.contiguous(memory_format=torch.channels_last), torch.from_numpy(labels[chosen])
