"""Training a small classifier on a CPU, the same way every time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial as bind
from itertools import islice
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

    from mbbench.models import Normalization
    from mbbench.spec import ModelSpec

_SETTLING_BATCHES = 64
_SPINS = "GOMP_SPINCOUNT"  # libgomp reads it once, when torch loads it


def train(
    spec: ModelSpec,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    recipe: Recipe,
    on_progress: Callable[[Progress], None] | None = None,
    partial: Path | None = None,
) -> dict[str, Tensor]:
    """Train `build(spec)` on uint8 images (N, R, R, 3) and return its state dict.

    Deterministic for one machine, torch version and number of threads; torch's global generator is left as it was.
    `partial`: see `fit`.
    Raises `UsageError` for fewer than two images: batch norm cannot learn from one.
    """
    _import_torch()
    import torch

    from mbbench.models import build, normalization

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        module = build(spec)
    fit(module, images, labels, normalization(spec.family), recipe, on_progress=on_progress, partial=partial)
    return {name: tensor.detach().contiguous() for name, tensor in module.state_dict().items()}


def fit(
    module: nn.Module,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    normalization: Normalization,
    recipe: Recipe,
    *,
    teacher: nn.Module | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    partial: Path | None = None,
) -> None:
    """Train `module` in place from where it stands, and leave it in evaluation mode.

    A `teacher` has `recipe.distillation` of the loss: the divergence from its softened answers (Hinton et al. 2015,
    arXiv 1503.02531). `partial` is a file that keeps the state of the last whole epoch: training that was cut off goes
    on from there, to the same weights.
    """
    if len(images) < 2:
        raise UsageError(f"{len(images)} image cannot train a network", "give at least 2, better hundreds a class")
    import torch
    from torch.nn import functional

    module.train()
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    generator = torch.Generator().manual_seed(recipe.seed)
    batches = bind(_batches, images, labels, normalization, recipe.batch_size, generator)
    steps = recipe.epochs * max(len(images) // recipe.batch_size, 1)
    optimizer = torch.optim.AdamW(module.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, total_steps=steps)
    kept: dict[str, Any] = {"module": module, "optimizer": optimizer, "schedule": schedule}
    first = _resume(partial, kept, generator)
    step = first * (steps // recipe.epochs)
    for epoch in range(first + 1, recipe.epochs + 1):
        for x, y in batches(recipe.shift):
            logits = module(x)
            loss = functional.cross_entropy(logits, y, label_smoothing=recipe.label_smoothing)
            if teacher is not None:
                loss = (1 - recipe.distillation) * loss + recipe.distillation * _divergence(
                    logits, teacher, x, recipe.temperature
                )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            step += 1
            if on_progress is not None:
                loss_now = round(loss.item(), 4)
                on_progress(Progress(step=step, steps=steps, epoch=epoch, epochs=recipe.epochs, loss=loss_now))
        if partial is not None and epoch < recipe.epochs:
            states = {name: thing.state_dict() for name, thing in kept.items()}
            with cache.atomic(partial) as temporary:
                torch.save({**states, "generator": generator.get_state(), "epoch": epoch}, temporary)
    _settle_batch_norm(module, (x for x, _ in islice(batches(0.0), _SETTLING_BATCHES)))
    module.eval()
    if partial is not None:
        partial.unlink(missing_ok=True)


def _resume(partial: Path | None, kept: Mapping[str, Any], generator: Generator) -> int:
    """Take up the state in `partial`, if it is there and whole; returns how many epochs it has behind it."""
    import torch

    if partial is None or not partial.exists():
        return 0
    try:
        found = torch.load(partial, weights_only=True)
        for name, thing in kept.items():
            thing.load_state_dict(found[name])
        generator.set_state(found["generator"])
        return int(found["epoch"])
    except (RuntimeError, OSError, EOFError, KeyError, ValueError, UnpicklingError):
        partial.unlink(missing_ok=True)
        raise UsageError(f"the interrupted training in {partial} is damaged", "it was removed: start again") from None


def _divergence(logits: Tensor, teacher: nn.Module, x: Tensor, temperature: float) -> Tensor:
    """Kullback and Leibler's, of the softened answers, times T^2 so that gradients keep their size."""
    import torch
    from torch.nn import functional

    with torch.no_grad():
        wanted = functional.log_softmax(teacher(x) / temperature, dim=1)
    given = functional.log_softmax(logits / temperature, dim=1)
    return functional.kl_div(given, wanted, reduction="batchmean", log_target=True) * temperature**2


def _import_torch() -> None:
    """Load PyTorch with OpenMP threads that soon sleep when idle, without a word of it to child processes.

    By default they spin for milliseconds between operators, on cores that others need: two trainings of 0.25/96 at once
    on two cores took 50 to 207 s each, and 34 to 45 s in this way. One of 0.5/128 alone pays a tenth for it (36 to 41 s
    against 32 to 34 s).
    """
    chosen = os.environ.get(_SPINS)
    os.environ.setdefault(_SPINS, "1000")
    try:
        import torch  # noqa: F401
    finally:
        if chosen is None:
            del os.environ[_SPINS]


def _settle_batch_norm(module: nn.Module, inputs: Iterable[Tensor]) -> None:
    """Set batch norm's statistics to their mean over `inputs` under the final weights (Wu and Johnson 2021, section 3).

    The running averages that training leaves still remember earlier weights. On digits at 0.25/96 they gave 10 % top-1
    after one epoch and these 35 %; from four epochs on both are alike.
    """
    import torch
    from torch import nn

    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.momentum = None  # a plain mean of all batches
    with torch.no_grad():
        for x in inputs:
            module(x)


def _batches(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    normalization: Normalization,
    batch_size: int,
    generator: Generator,
    shift: float,
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch in a new order; its last, smaller batch is left out, for batch norm's sake."""
    import numpy as np
    import torch

    from mbbench.data.feed import to_float

    reach = round(shift * images.shape[1])
    order = torch.randperm(len(images), generator=generator).numpy()
    for start in range(0, max(len(order) - batch_size, 0) + 1, batch_size):
        chosen = np.sort(order[start : start + batch_size])
        x = torch.from_numpy(to_float(images[chosen], normalization))
        if reach:
            dy, dx = torch.randint(-reach, reach + 1, (2,), generator=generator).tolist()
            x = x.roll((dy, dx), (2, 3))
        yield x.contiguous(memory_format=torch.channels_last), torch.from_numpy(labels[chosen])
