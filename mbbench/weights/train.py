"""Training a small classifier on a CPU, the same way every time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from mbbench.errors import UsageError
from mbbench.weights.recipe import Progress, Recipe

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from mbbench.spec import ModelSpec


def train(
    spec: ModelSpec,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    recipe: Recipe,
    on_progress: Callable[[Progress], None] | None = None,
) -> dict[str, Tensor]:
    """Train `build(spec)` on uint8 images (N, R, R, 3) and return its state dict.

    Deterministic for one machine, torch version and number of threads; torch's global generator is left as it was.
    Raises `UsageError` for fewer than two images: batch norm cannot learn from one.
    """
    if len(images) < 2:
        raise UsageError(f"{len(images)} image cannot train a network", "give at least 2, better hundreds a class")

    import torch
    from torch.nn import functional

    from mbbench.models import build, normalization

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        module = build(spec).train()
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    generator = torch.Generator().manual_seed(recipe.seed)
    steps_per_epoch = max(len(images) // recipe.batch_size, 1)
    steps = recipe.epochs * steps_per_epoch
    optimizer = torch.optim.AdamW(module.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, total_steps=steps)
    norm = normalization(spec.family)
    for step, (x, y) in enumerate(_batches(images, labels, norm, recipe, generator), 1):
        loss = functional.cross_entropy(module(x), y, label_smoothing=recipe.label_smoothing)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if on_progress is not None:
            epoch = (step - 1) // steps_per_epoch + 1
            on_progress(Progress(step=step, steps=steps, epoch=epoch, epochs=recipe.epochs, loss=round(loss.item(), 4)))
    return {name: tensor.detach().contiguous() for name, tensor in module.eval().state_dict().items()}


def _batches(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    normalization: object,
    recipe: Recipe,
    generator: object,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Every epoch in a new order; the last, smaller batch of an epoch is left out, for batch norm's sake."""
    import numpy as np
    import torch

    from mbbench.data.feed import to_float

    reach = round(recipe.shift * images.shape[1])
    for _ in range(recipe.epochs):
        order = torch.randperm(len(images), generator=generator).numpy()  # type: ignore[call-overload]
        for start in range(0, max(len(order) - recipe.batch_size, 0) + 1, recipe.batch_size):
            chosen = np.sort(order[start : start + recipe.batch_size])
            x = torch.from_numpy(to_float(images[chosen], normalization))  # type: ignore[arg-type]
            if reach:
                dy, dx = torch.randint(-reach, reach + 1, (2,), generator=generator).tolist()  # type: ignore[call-overload]
                x = x.roll((dy, dx), (2, 3))
            yield x.contiguous(memory_format=torch.channels_last), torch.from_numpy(labels[chosen])
