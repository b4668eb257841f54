"""How to train: plain data, no torch."""

from __future__ import annotations

from dataclasses import dataclass

from mbbench.errors import UsageError

TRAINER = 2  # raise it when train.py makes other weights of the same recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """AdamW with a one-cycle learning rate; random shifts of up to `shift` of the side."""

    epochs: int = 8
    batch_size: int = 32
    learning_rate: float = 4e-3
    weight_decay: float = 0.01
    label_smoothing: float = 0.05
    shift: float = 0.06
    seed: int = 0
    distillation: float = 0.0  # the teacher's share in the loss, 0 to 1
    temperature: float = 4.0  # that softens the teacher's answers

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise UsageError(f"{self.epochs} epochs train nothing", "give at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where training stands: steps done of all, and the running loss."""

    step: int
    steps: int
    epoch: int
    epochs: int
    loss: float
