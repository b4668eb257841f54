"""A session on an NVIDIA GPU: pinned host memory, and for a compiled network one CUDA graph per batch size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from mbbench.backend import DeviceCall, Executed, LayerAudit, LayerProfile, NodeTime, OnDevice, Session
from mbbench.errors import BackendError, first_line
from mbbench.nvidia import nvml
from mbbench_torch import layers
from mbbench_torch.compiled import Call

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

_Mark = Callable[[int], object]
_MOMENTS = 4  # of a call: before and after each of its three parts
_WARM_CALLS = 3  # before a capture: they compile, and choose cuDNN's kernels


def _mark_nothing(moment: int) -> None:
    pass


class GpuSession(Session, LayerAudit, LayerProfile, OnDevice):
    """A function from images in `dtype` to logits, on the GPU `device`.

    A call copies the images in, computes, and copies the logits out, all on the session's stream, so that sessions
    in several threads overlap. The buffers and the CUDA graph are those of the last batch size. The copies are not part
    of the graph, since not every release of PyTorch can capture copies from and to its pinned memory.
    """

    def __init__(
        self,
        call: Call,
        facts: Mapping[str, str],
        dtype: torch.dtype,
        executed: tuple[Executed, ...],
        device: torch.device,
        input_shape: tuple[int, ...],
        *,
        graphs: bool,
    ) -> None:
        import torch

        self._torch: Any = torch
        self._call, self._dtype, self._executed = call, dtype, executed
        self._device, self._graphs, self._mode = device, graphs, facts["mode"]
        self._stream = self._torch.cuda.Stream(device)
        self._graph: tuple[torch.cuda.CUDAGraph, torch.Tensor] | None = None  # with the logits that it writes
        torch.cuda.synchronize(device)  # the weights were copied on another stream
        self._prepare(input_shape)
        self.facts = {**facts, "mode": self._mode}

    def _prepare(self, shape: tuple[int, ...]) -> None:
        """Set the buffers and the CUDA graph for a batch size. Raises `BackendError`."""
        torch = self._torch
        self._shape = shape
        self._graph = None
        with _errors(shape[0]), torch.inference_mode(), torch.cuda.stream(self._stream):
            self._pinned_images = _pinned(shape)
            self._host_images = self._pinned_images.numpy()
            self._host_images[:] = 0
            self._images = torch.zeros(shape, device=self._device)
            for _ in range(_WARM_CALLS):
                logits = self._forward()
            self._stream.synchronize()
            self._pinned_logits = _pinned(tuple(logits.shape))
        if self._graphs:
            self._capture()

    def _capture(self) -> None:
        """Capture the computation in a CUDA graph; if that fails, calls go on without one, and `mode` says why."""
        torch = self._torch
        graph = torch.cuda.CUDAGraph()
        try:
            # Another thread may allocate memory meanwhile, which would end a capture that is not the thread's alone.
            with (
                torch.inference_mode(),
                torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"),
            ):
                logits = self._forward()
        except RuntimeError as error:
            self._mode = f"compile, since no CUDA graph can be captured: {first_line(error)}"
            return
        self._graph = (graph, logits)
        self._mode = "compile, CUDA graph"

    def _forward(self) -> torch.Tensor:
        """Return the logits of the images on the GPU, in fp32 and on the GPU."""
        return self._call(self._images.to(self._dtype)).float()

    def _compute(self) -> torch.Tensor:
        """Return what `_forward` does, by the graph if there is one."""
        if self._graph is None:
            return self._forward()
        graph, logits = self._graph
        graph.replay()
        return logits

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        self._work(images, self._compute)
        return self._pinned_logits.numpy().copy()

    def _work(
        self, images: NDArray[np.float32], compute: Callable[[], torch.Tensor], mark: _Mark = _mark_nothing
    ) -> None:
        """Do the three parts of a call, with `compute` as the second, and wait for them."""
        if images.shape != self._shape:
            self._prepare(images.shape)
        self._host_images[:] = images
        with self._torch.inference_mode(), self._torch.cuda.stream(self._stream):
            mark(0)
            self._images.copy_(self._pinned_images, non_blocking=True)
            mark(1)
            logits = compute()
            mark(2)
            self._pinned_logits.copy_(logits, non_blocking=True)
            mark(3)
        self._stream.synchronize()

    def device_times(self, images: NDArray[np.float32], runs: int) -> tuple[DeviceCall, ...]:
        events = [self._torch.cuda.Event(enable_timing=True) for _ in range(_MOMENTS)]
        calls = []
        for _ in range(runs + 1):
            self._work(images, self._compute, lambda moment: events[moment].record())
            calls.append(DeviceCall(*(start.elapsed_time(end) for start, end in pairwise(events))))
        return tuple(calls[1:])

    def device_memory_bytes(self) -> int:
        return nvml.Board(self._device.index).process_memory_bytes()

    def executed(self) -> tuple[Executed, ...]:
        return self._executed

    def profile(self, images: NDArray[np.float32], runs: int) -> tuple[NodeTime, ...]:
        """Time the kernels of calls without the graph, whose kernels the profiler cannot attribute to layers."""
        from torch.profiler import ProfilerActivity, profile, record_function

        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
            for _ in range(runs + 1):
                with record_function(layers.CALL):
                    self._work(images, self._forward)
        # The profiler repeats each label on the GPU's timeline.
        calls = [event for event in profiler.events() if event.name == layers.CALL and event.device_type.name == "CPU"]
        return layers.node_times(calls[1:], self._executed, layers.gpu_us)

    def close(self) -> None:
        self._graph = None
        del self._call, self._images
        self._torch.cuda.empty_cache()


def _pinned(shape: tuple[int, ...]) -> torch.Tensor:
    """Return page-locked host memory, which the GPU reads and writes directly."""
    import torch

    return torch.empty(shape, pin_memory=True)


@contextmanager
def _errors(batch: int) -> Iterator[None]:
    """Turn CUDA's errors while a batch size is prepared into `BackendError`."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise BackendError(f"the GPU's memory is full at batch {batch}", "free it, or lower the batch size") from error
    except RuntimeError as error:
        raise BackendError(
            f"PyTorch cannot run batch {batch} on the GPU: {first_line(error)}", "check the GPU with `nvidia-smi`"
        ) from error
