"""Plain data about training: the recipe and the progress. Does not import torch."""

from __future__ import annotations

from dataclasses import dataclass

from mbbench.spec.bounds import require_fields

TRAINER = 2  # version of train.py; increase it if the same recipe yields different weights
FINE_TUNER = 1  # the same for finetune.py


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Hyperparameters: AdamW with a one-cycle learning rate, and random shifts of the images as augmentation.

    Raises `UsageError` if `epochs` is out of bounds.
    """

    epochs: int = 8
    batch_size: int = 32
    learning_rate: float = 4e-3
    weight_decay: float = 0.01
    label_smoothing: float = 0.05
    shift: float = 0.06  # largest shift, as a fraction of the side
    seed: int = 0
    distillation: float = 0.0  # weight of the teacher's term in the loss, 0 to 1
    temperature: float = 4.0  # of the softmax in the teacher's term

    def __post_init__(self) -> None:
        require_fields(self, "epochs")


@dataclass(frozen=True, slots=True, kw_only=True)
class FineTuning(Recipe):
    """A recipe for a network that is already trained: on few images too, training has enough steps.

    The learning rate is warmed up over the first three tenths of the steps and then lowered, as in training. Its peak
    is that of training: a quarter of it left half-pruned networks far from what they can learn (docs/decisions.md).
    """

    min_steps: int  # an epoch passes over the images as often as these need


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Progress of training: the current step and epoch of all, counted from 1, and the loss of that step."""

    step: int
    steps: int
    epoch: int
    epochs: int
    loss: float
