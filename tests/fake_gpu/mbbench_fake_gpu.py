"""torch-eager on a simulated GPU that calls CUDA graphs, draws 30 W, and computes on the CPU."""

from time import perf_counter

import torch
from mbbench_torch import backend, gpu

from mbbench.nvidia import nvml, runtime
from mbbench.testing.cuda import FakeCuda


class _Board:
    def __init__(self, index: int) -> None:
        pass

    def microjoules(self) -> int:
        return int(perf_counter() / 0.02) * 600_000  # updated every 20 ms, as NVML is

    def process_memory_bytes(self) -> int:
        return 400_000_000


class FakeGpuBackend(backend.EagerBackend):
    graphs = True

    def __init__(self) -> None:
        for name, replacement in FakeCuda().replacements.items():
            setattr(torch.cuda, name, replacement)
        gpu._pinned = torch.empty  # type: ignore[assignment]
        nvml.Board = _Board  # type: ignore[assignment, misc]
        runtime.count = lambda: 1
        runtime.gpu = lambda index: runtime.Gpu("Simulated GPU", (9, 0))
        backend._built_with_cuda = lambda: True
        backend._start_gpu = lambda index: (
            torch.device("cpu"),
            {"tf32": "off", "device": runtime.gpu(index).description},
        )
