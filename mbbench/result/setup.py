"""The setup of a measurement: what must be equal for two results to be comparable."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from mbbench.spec import ModelSpec, Precision, Preprocessing


@dataclass(frozen=True, slots=True)
class Setup:
    """What was measured, where and how: results with equal setups repeat each other.

    To pair a result with another, look up its setup with the fields that may differ replaced:
    `result.setup.same_but(precision="fp32")`. `machine` is the fingerprint's id, `device` the device's name in lower
    case, `weights` the requested weights with their preprocessing (`Result.preprocessing`), and `data` the fingerprint
    of the test images and of how their labels were mapped, or None without any.
    """

    machine: str
    model: ModelSpec
    weights: tuple[str | None, Preprocessing | None] | None
    backend: str
    device: str
    precision: Precision
    threads: int
    batch: int
    data: str | None

    def same_but(self, **changes: Any) -> Setup:
        """Return the setup with the fields in `changes` replaced."""
        return replace(self, **changes)

    @property
    def on_cpu(self) -> bool:
        return self.device.startswith("cpu")
