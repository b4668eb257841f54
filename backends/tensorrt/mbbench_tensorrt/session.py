"""A session on an engine: pinned host memory, GPU buffers, and the work of a call as one CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mbbench.backend import DeviceCall, Executed, LayerAudit, LayerProfile, NodeTime, OnDevice, Session
from mbbench.errors import BackendError
from mbbench.nvidia.nvml import Board
from mbbench.nvidia.runtime import bindings, cuda
from mbbench_tensorrt import cache as engine_cache
from mbbench_tensorrt import layers
from mbbench_tensorrt.pinned import Pinned

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_Mark = Callable[[int], object]
_MOMENTS = 4  # of a call: before and after each of its three parts


def _mark_nothing(moment: int) -> None:
    pass


class TensorRtSession(Session, LayerAudit, LayerProfile, OnDevice):
    """An engine on one GPU.

    Buffers are allocated for the largest batch so far; the shapes and the CUDA graph are those of the last batch size.
    `kernels` is the file in which the kernels that TensorRT-RTX compiles for this GPU are cached.
    """

    def __init__(
        self,
        trt: ModuleType,
        runtime: Any,
        engine: Any,
        index: int,
        input_shape: tuple[int, int, int, int],
        facts: Mapping[str, str],
        kernels: Path,
    ) -> None:
        self._trt, self._index = trt, index
        self._runtime, self._engine = runtime, engine  # the context needs both alive
        self._kernels_path = kernels
        self._kernels: Any = None
        self._origin: dict[str, str] = {}
        self._context = self._make_context()
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        self._input = next(n for n in names if engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT)
        self._output = next(n for n in names if engine.get_tensor_mode(n) == trt.TensorIOMode.OUTPUT)
        self._largest = engine.get_tensor_profile_shape(self._input, 0)[2][0]
        self._stream = cuda("cudaStreamCreate")
        self._device: dict[str, int] = {}
        self._pinned: dict[str, Pinned] = {}
        self._batch = self._capacity = 0
        self._graph: Any = None
        self._mode = ""
        self._profiler: Any = None
        self._prepare(input_shape)
        types = dict.fromkeys(node.precision for node in self.executed())
        self.facts = {**facts, **self._origin, "precision": " ".join(types) or "unknown", "mode": self._mode}

    def _make_context(self) -> Any:
        """Create the execution context. TensorRT-RTX compiles kernels just in time unless they are cached."""
        if hasattr(self._trt, "IRuntimeCache"):
            config = self._engine.create_runtime_config()
            # By default kernels for a new shape are compiled in the background, and calls get faster over time.
            config.dynamic_shapes_kernel_specialization_strategy = (
                self._trt.DynamicShapesKernelSpecializationStrategy.EAGER
            )
            self._kernels = config.create_runtime_cache()
            cached = engine_cache.recall(self._kernels_path)
            loaded = cached is not None and self._kernels.deserialize(cached)  # rejects another GPU's or driver's
            self._origin = {"kernels": "from the cache" if loaded else "compiled"}
            config.set_runtime_cache(self._kernels)
            context = self._engine.create_execution_context(runtime_config=config)
        else:
            context = self._engine.create_execution_context()
        if context is None:
            raise BackendError("TensorRT cannot create an execution context", "free memory on the GPU")
        return context

    def _prepare(self, shape: tuple[int, ...]) -> None:
        """Set the shapes, memory, kernels and CUDA graph for a batch size. Raises `BackendError` if it is too large."""
        batch = shape[0]
        if batch > self._largest:
            raise BackendError(
                f"batch {batch} is larger than the engine's maximum of {self._largest}", "lower --batch or bulk_batch"
            )
        if not self._context.set_input_shape(self._input, shape):
            raise BackendError(f"TensorRT refuses the input shape {shape}", "report this as a bug in the backend")
        classes = int(self._context.get_tensor_shape(self._output)[1])
        if batch > self._capacity:
            self._free()
            for name, buffer_shape in ((self._input, shape), (self._output, (batch, classes))):
                self._pinned[name] = Pinned(buffer_shape)
                self._device[name] = int(cuda("cudaMalloc", self._pinned[name].array.nbytes))
                self._context.set_tensor_address(name, self._device[name])
            self._capacity = batch
        self._images = self._pinned[self._input].array[:batch]
        self._logits = self._pinned[self._output].array[:batch]
        self._batch = batch
        self._release(self._graph)
        self._graph = None
        self._enqueue()  # compiles the remaining kernels; a graph can only be captured from a context that has run
        cuda("cudaStreamSynchronize", self._stream)
        try:
            self._graph = self._capture()
            self._mode = "CUDA graph"
        except BackendError as error:
            self._mode = f"stream, since no CUDA graph can be captured: {error.cause}"

    def _enqueue(self, mark: _Mark = _mark_nothing) -> None:
        """Enqueue the work of a call: copy in, compute, copy out."""
        kind = bindings().cudaMemcpyKind
        images, logits, stream = self._images, self._logits, self._stream
        mark(0)
        cuda(
            "cudaMemcpyAsync", self._device[self._input], images.ctypes.data, images.nbytes,
            kind.cudaMemcpyHostToDevice, stream,
        )  # fmt: skip
        mark(1)
        if not self._context.execute_async_v3(int(stream)):
            raise BackendError("TensorRT failed to run the engine", "see the driver's log")
        mark(2)
        cuda(
            "cudaMemcpyAsync", logits.ctypes.data, self._device[self._output], logits.nbytes,
            kind.cudaMemcpyDeviceToHost, stream,
        )  # fmt: skip
        mark(3)

    def _capture(self, mark: _Mark = _mark_nothing) -> Any:
        """Capture the work of a call as a CUDA graph. Raises `BackendError` if it cannot be captured."""
        cuda("cudaStreamBeginCapture", self._stream, bindings().cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal)
        try:
            self._enqueue(mark)
        finally:
            captured = cuda("cudaStreamEndCapture", self._stream)
        graph = cuda("cudaGraphInstantiate", captured, 0)
        cuda("cudaGraphDestroy", captured)
        return graph

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        self._set_images(images)
        self._call(self._graph, _mark_nothing)
        return self._logits.copy()

    def _set_images(self, images: NDArray[np.float32]) -> None:
        if len(images) != self._batch:
            self._prepare(images.shape)
        self._images[:] = images

    def _call(self, graph: Any, mark: _Mark) -> None:
        """Do the work of a call, by `graph` unless it is None, and wait for it."""
        if graph is None:
            self._enqueue(mark)
        else:
            cuda("cudaGraphLaunch", graph, self._stream)
        cuda("cudaStreamSynchronize", self._stream)

    def device_times(self, images: NDArray[np.float32], runs: int) -> tuple[DeviceCall, ...]:
        """Return the times between CUDA events, which are captured in a second graph if calls are graphs."""
        self._set_images(images)
        events = [cuda("cudaEventCreate") for _ in range(_MOMENTS)]
        flags = bindings().cudaEventRecordDefault if self._graph is None else bindings().cudaEventRecordExternal

        def mark(moment: int) -> None:
            cuda("cudaEventRecordWithFlags", events[moment], self._stream, flags)

        graph = None if self._graph is None else self._capture(mark)
        calls = []
        for _ in range(runs + 1):
            self._call(graph, mark)
            calls.append(DeviceCall(*(cuda("cudaEventElapsedTime", *pair) for pair in pairwise(events))))
        self._release(graph)
        for event in events:
            cuda("cudaEventDestroy", event)
        return tuple(calls[1:])

    def device_memory_bytes(self) -> int:
        return Board(self._index).process_memory_bytes()

    def executed(self) -> tuple[Executed, ...]:
        return tuple(self._layers().values())

    def _layers(self) -> dict[str, Executed]:
        inspector = self._engine.create_engine_inspector()
        inspector.execution_context = self._context  # its shapes decide the formats
        return layers.executed(inspector.get_engine_information(self._trt.LayerInformationFormat.JSON))

    def profile(self, images: NDArray[np.float32], runs: int) -> tuple[NodeTime, ...]:
        """Time calls without the graph, whose layers the profiler cannot see. The profiler stays attached."""
        self._set_images(images)
        readings: dict[str, list[float]] = {}

        class Profiler(self._trt.IProfiler):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                super().__init__()

            def report_layer_time(self, layer_name: str, ms: float) -> None:
                readings.setdefault(layer_name, []).append(ms)

        self._profiler = Profiler()
        self._context.profiler = self._profiler
        for _ in range(runs + 1):
            self._call(None, _mark_nothing)
        return layers.timed(readings, self._layers())

    @staticmethod
    def _release(graph: Any) -> None:
        if graph is not None:
            cuda("cudaGraphExecDestroy", graph)

    def _free(self) -> None:
        while self._device:
            cuda("cudaFree", self._device.popitem()[1])
        while self._pinned:
            self._pinned.popitem()[1].free()

    def close(self) -> None:
        self._release(self._graph)
        self._free()
        cuda("cudaStreamDestroy", self._stream)
        if self._kernels is not None:
            engine_cache.store(self._kernels_path, bytes(self._kernels.serialize()))
        del self._context, self._engine, self._runtime
