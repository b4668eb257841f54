"""Fine-tuning of trained weights, safe for few images: enough steps, and the best state on held-out images is kept."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial as bind
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbbench.stats import paired_interval
from mbbench.weights import train
from mbbench.weights.recipe import FineTuning, Progress

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from mbbench.spec import Preprocessing

_ONE_IN = 8  # images of a class is held out
_FEWEST, _MOST = 16, 512  # held-out images; fewer could not tell two states apart
_BATCH = 64


def fine_tune(
    module: nn.Module,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    preprocessing: Preprocessing,
    recipe: FineTuning,
    *,
    teacher: nn.Module | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    partial: Path | None = None,
) -> None:
    """Train `module` in place (`train.fit`), and keep the best state on images that are held out of training.

    An epoch passes over the images several times if the steps would otherwise be fewer than `recipe.min_steps`. If too
    few images can be held out (`hold_out`), none are, and the last state is kept. Raises `UsageError`.
    """
    import numpy as np

    held_out = hold_out(labels, recipe.seed)
    rows = np.setdiff1d(np.arange(len(images)), held_out)
    epoch = train.steps_per_pass(len(rows), recipe)
    best = BestState(images, labels, held_out, rows, preprocessing, recipe) if len(held_out) else None
    train.fit(
        module, images, labels, preprocessing, recipe, teacher=teacher, on_progress=on_progress, partial=partial,
        rows=rows, passes=max(math.ceil(recipe.min_steps / (recipe.epochs * epoch)), 1), best=best,
    )  # fmt: skip


def hold_out(labels: NDArray[np.int64], seed: int) -> NDArray[np.intp]:
    """Return the sorted rows of the images that are held out of training: an eighth of each class, at most 512.

    If these are fewer than 16, none are held out: all are needed for training.
    """
    import numpy as np

    generator = np.random.default_rng(seed)
    chosen = []
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        chosen.append(members[: len(members) // _ONE_IN])
    rows = generator.permutation(np.concatenate(chosen))[:_MOST]
    return np.sort(rows) if len(rows) >= _FEWEST else rows[:0]


class BestState:
    """The state of a network with the smallest loss on held-out images, of those after each epoch.

    The state before the first step is kept instead if it is right on more of these images than chance explains. More
    than that is asked of it because it may have been trained on them.
    """

    def __init__(
        self,
        images: NDArray[np.uint8],
        labels: NDArray[np.int64],
        held_out: NDArray[np.intp],
        rows: NDArray[np.intp],
        preprocessing: Preprocessing,
        recipe: FineTuning,
    ) -> None:
        """Judge by the rows `held_out` of `images`, after batch norm's statistics are computed from `rows`."""
        import torch

        from mbbench.data.feed import to_float

        self._inputs = torch.from_numpy(to_float(images[held_out], preprocessing))
        self._labels = torch.from_numpy(labels[held_out])
        self._batches = bind(train.training_batches, images, labels, rows, preprocessing, recipe.batch_size, shift=0.0)
        self._seed = recipe.seed
        self._start: dict[str, Any] | None = None
        self._trained: dict[str, Any] | None = None

    def consider(self, module: nn.Module) -> None:
        """Judge the present state: the first call gets the state before training. Sets batch norm's statistics."""
        import torch

        generator = torch.Generator().manual_seed(self._seed)  # the same batches for every state
        train.recompute_batch_norm(module, self._batches(generator=generator))
        candidate = self._judge(module)
        if self._start is None:
            self._start = candidate
        elif candidate["loss"] < (math.inf if self._trained is None else self._trained["loss"]):  # not NaN
            self._trained = candidate

    def restore(self, module: nn.Module) -> None:
        """Give `module` the best state."""
        assert self._start is not None
        kept = self._trained or self._start  # the start, if training diverged
        only_start = int((self._start["right"] & ~kept["right"]).sum())
        only_kept = int((kept["right"] & ~self._start["right"]).sum())
        if paired_interval(only_start, only_kept, len(self._labels)).low > 0:
            kept = self._start
        module.load_state_dict(kept["state"])

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` restores."""
        return {"start": self._start, "trained": self._trained}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the states that were considered before an interruption."""
        self._start, self._trained = state["start"], state["trained"]

    def _judge(self, module: nn.Module) -> dict[str, Any]:
        """Return the state, its loss, and on which held-out images it is right."""
        import torch
        from torch.nn import functional

        module.eval()
        with torch.no_grad():
            starts = range(0, len(self._inputs), _BATCH)
            logits: Tensor = torch.cat([module(self._inputs[start : start + _BATCH]) for start in starts])
        return {
            "loss": functional.cross_entropy(logits, self._labels).item(),
            "right": logits.argmax(dim=1) == self._labels,
            "state": {name: tensor.detach().clone() for name, tensor in module.state_dict().items()},
        }
