"""A session on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mbbench.backend import Executed, LayerAudit, LayerProfile, NodeTime, Session
from mbbench_torch import layers
from mbbench_torch.compiled import Call

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray


class CpuSession(Session, LayerAudit, LayerProfile):
    """A function from images in `dtype` to logits, on the CPU."""

    def __init__(
        self, call: Call, facts: Mapping[str, str], dtype: torch.dtype, executed: tuple[Executed, ...]
    ) -> None:
        import torch

        self._call, self._inference_mode, self._from_numpy = call, torch.inference_mode, torch.from_numpy
        self._dtype, self._executed = dtype, executed
        self.facts = facts

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        with self._inference_mode():
            logits: NDArray[np.float32] = self._call(self._from_numpy(images).to(self._dtype)).float().numpy()
        return logits

    def executed(self) -> tuple[Executed, ...]:
        return self._executed

    def profile(self, images: NDArray[np.float32], runs: int) -> tuple[NodeTime, ...]:
        from torch.profiler import ProfilerActivity, profile, record_function

        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            for _ in range(runs + 1):
                with record_function(layers.CALL):
                    self.run(images)
        calls = [event for event in profiler.events() if event.name == layers.CALL]
        return layers.node_times(calls[1:], self._executed, layers.cpu_us)

    def close(self) -> None:
        del self._call
