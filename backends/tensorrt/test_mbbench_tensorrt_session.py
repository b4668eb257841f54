"""The session's logic on a GPU simulated in host memory; test_mbbench_tensorrt.py has the tests on a real GPU."""
# ruff: noqa: N802, N815  (functions have CUDA's names)

import ctypes
import inspect
import json
import re
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cuda.bindings import runtime as real
from mbbench_tensorrt.session import TensorRtSession

from mbbench.backend import DeviceCall, Executed, OnDevice
from mbbench.errors import BackendError
from mbbench.nvidia import runtime
from mbbench.nvidia.runtime import count, cuda

SHAPE = (1, 3, 4, 4)
CLASSES = 5
STREAM = real.cudaStream_t()
OK, REFUSED = real.cudaError_t.cudaSuccess, real.cudaError_t.cudaErrorStreamCaptureInvalidated


def has_driver() -> bool:
    try:
        return bool(count())
    except BackendError as error:
        return "no NVIDIA driver" not in error.cause


no_driver = pytest.mark.skipif(has_driver(), reason="this machine has a driver")


class FakeCuda:
    """A fake of CUDA's bindings: work runs at once, or is recorded while a graph is captured. A copy takes 1 ms."""

    def __init__(self) -> None:
        self.memory: dict[int, Any] = {}
        self.captured: list[Callable[[], object]] | None = None
        self.launched = 0
        self.now = 0
        self.refuses_graphs = False

    def __getattr__(self, name: str) -> Any:
        """Return CUDA's constants, and fail if the session calls a function that this class does not simulate."""
        value = getattr(real, name)
        assert not callable(value) or isinstance(value, type), name
        return value

    def submit(self, work: Callable[[], object]) -> tuple[Any]:
        if self.captured is not None:
            self.captured.append(work)
        else:
            work()
        return (OK,)

    def _allocate(self, size: int) -> tuple[Any, int]:
        buffer = (ctypes.c_byte * size)()
        self.memory[ctypes.addressof(buffer)] = buffer
        return OK, ctypes.addressof(buffer)

    def _free(self, address: int) -> tuple[Any]:
        del self.memory[address]
        return (OK,)

    cudaMalloc = cudaMallocHost = _allocate
    cudaFree = cudaFreeHost = _free

    def cudaStreamCreate(self) -> tuple[Any, int]:
        return OK, 7

    def cudaStreamSynchronize(self, stream: int) -> tuple[Any]:
        assert self.captured is None
        return (OK,)

    def cudaStreamDestroy(self, stream: int) -> tuple[Any]:
        return (OK,)

    def cudaMemcpyAsync(self, target: int, source: int, size: int, kind: Any, stream: int) -> tuple[Any]:
        def copy() -> None:
            self.now += 1
            ctypes.memmove(target, source, size)

        return self.submit(copy)

    def cudaStreamBeginCapture(self, stream: int, mode: Any) -> tuple[Any]:
        self.captured = []
        return (OK,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[Any, Any]:
        graph, self.captured = self.captured, None
        return (REFUSED, None) if self.refuses_graphs else (OK, graph)

    def cudaGraphInstantiate(self, graph: Any, flags: int) -> tuple[Any, Any]:
        return OK, list(graph)

    def cudaGraphDestroy(self, graph: Any) -> tuple[Any]:
        return (OK,)

    cudaGraphExecDestroy = cudaGraphDestroy

    def cudaGraphLaunch(self, graph: Any, stream: int) -> tuple[Any]:
        self.launched += 1
        for work in graph:
            work()
        return (OK,)

    def cudaEventCreate(self) -> tuple[Any, SimpleNamespace]:
        return OK, SimpleNamespace(at=None)

    def cudaEventDestroy(self, event: Any) -> tuple[Any]:
        return (OK,)

    def cudaEventRecordWithFlags(self, event: Any, stream: int, flags: int) -> tuple[Any]:
        assert flags == (real.cudaEventRecordExternal if self.captured is not None else real.cudaEventRecordDefault)
        return self.submit(lambda: setattr(event, "at", self.now))

    def cudaEventElapsedTime(self, start: Any, end: Any) -> tuple[Any, float]:
        return OK, float(end.at - start.at)


class Context:
    """A fake execution context: logit k of an image is its sum plus k, and a call computes for 3 ms."""

    profiler: Any = None

    def __init__(self, gpu: FakeCuda) -> None:
        self._gpu = gpu
        self._addresses: dict[str, int] = {}
        self.shapes: list[tuple[int, ...]] = []

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes.append(shape)
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, int]:
        return self.shapes[-1][0], CLASSES

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        self._gpu.submit(self._compute)
        return True

    def _compute(self) -> None:
        self._gpu.now += 3
        shape = self.shapes[-1]
        images = self._array("images", shape)
        self._array("logits", (shape[0], CLASSES))[:] = images.sum((1, 2, 3))[:, None] + np.arange(CLASSES)
        if self.profiler is not None:
            self.profiler.report_layer_time("stem.conv", 0.5)

    def _array(self, name: str, shape: tuple[int, ...]) -> Any:
        size = int(np.prod(shape))
        return np.ctypeslib.as_array((ctypes.c_float * size).from_address(self._addresses[name])).reshape(shape)


class Kernels:
    """A fake of TensorRT-RTX's cache of the kernels that it compiles just in time."""

    content = b"kernels of "

    def deserialize(self, blob: bytes) -> bool:
        self.content = blob
        return True

    def serialize(self) -> bytes:
        return self.content + b"a run "


class Engine:
    """A fake engine with one layer."""

    num_io_tensors = 2

    def __init__(self, gpu: FakeCuda) -> None:
        self.context = Context(gpu)
        self.config = SimpleNamespace(create_runtime_cache=Kernels, set_runtime_cache=lambda kernels: None)

    def get_tensor_name(self, index: int) -> str:
        return ("images", "logits")[index]

    def get_tensor_mode(self, name: str) -> str:
        return {"images": "in", "logits": "out"}[name]

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        return [SHAPE, SHAPE, (64, *SHAPE[1:])]

    def create_runtime_config(self) -> SimpleNamespace:
        return self.config

    def create_execution_context(self, runtime_config: SimpleNamespace | None = None) -> Context:
        return self.context

    def create_engine_inspector(self) -> SimpleNamespace:
        layer = {"Name": "stem.conv", "LayerType": "conv", "Inputs": [{"Datatype": "Half"}], "Metadata": ""}
        return SimpleNamespace(get_engine_information=lambda format: json.dumps({"Layers": [layer]}))


class Specialization(Enum):
    LAZY, EAGER = range(2)


TENSORRT = SimpleNamespace(
    TensorIOMode=SimpleNamespace(INPUT="in", OUTPUT="out"),
    LayerInformationFormat=SimpleNamespace(JSON="json"),
    IProfiler=type("IProfiler", (), {}),
)
RTX = SimpleNamespace(**vars(TENSORRT), IRuntimeCache=Kernels, DynamicShapesKernelSpecializationStrategy=Specialization)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    fake = FakeCuda()
    monkeypatch.setattr(runtime, "bindings", lambda: fake)
    monkeypatch.setattr("mbbench_tensorrt.session.bindings", lambda: fake)
    return fake


@pytest.fixture
def session(gpu: FakeCuda, tmp_path: Path) -> Iterator[TensorRtSession]:
    with make(gpu, tmp_path) as session:
        yield session
    assert not gpu.memory


def make(gpu: FakeCuda, folder: Path, trt: Any = TENSORRT, engine: Engine | None = None) -> TensorRtSession:
    return TensorRtSession(trt, None, engine or Engine(gpu), 0, SHAPE, {"engine": "built"}, folder / "key.kernels")


def images(batch: int, value: float) -> Any:
    return np.full((batch, *SHAPE[1:]), value, np.float32)


def expected(batch: int, value: float) -> Any:
    return np.broadcast_to(48 * value + np.arange(CLASSES, dtype=np.float32), (batch, CLASSES))


def test_the_fake_functions_take_as_many_arguments_as_cudas() -> None:
    for name, function in vars(FakeCuda).items():
        if name.startswith("cuda"):
            (signature,) = re.findall(rf"^{name}\((.*?)\)", getattr(real, name).__doc__, re.S)
            count = len([parameter for parameter in signature.split(",") if parameter.strip()])
            assert count == len(inspect.signature(function).parameters) - 1, name


@no_driver
@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("cudaMalloc", (16,)),
        ("cudaMallocHost", (16,)),
        ("cudaMemcpyAsync", (64, 64, 16, real.cudaMemcpyKind.cudaMemcpyHostToDevice, STREAM)),
        ("cudaStreamBeginCapture", (STREAM, real.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal)),
        ("cudaStreamEndCapture", (STREAM,)),
        ("cudaGraphInstantiate", (real.cudaGraph_t(), 0)),
        ("cudaGraphLaunch", (real.cudaGraphExec_t(), STREAM)),
        ("cudaEventRecordWithFlags", (real.cudaEvent_t(), STREAM, real.cudaEventRecordExternal)),
        ("cudaEventElapsedTime", (real.cudaEvent_t(), real.cudaEvent_t())),
    ],
)
def test_the_real_bindings_fail_only_because_there_is_no_driver(function: str, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(BackendError, match="no NVIDIA driver was found"):
        cuda(function, *arguments)


def test_calls_replay_a_graph_and_results_outlive_the_next_call(session: TensorRtSession, gpu: FakeCuda) -> None:
    assert session.facts == {"engine": "built", "precision": "fp16", "mode": "CUDA graph"}
    first = session.run(images(1, 1.0))
    second = session.run(images(1, 2.0))
    assert gpu.launched == 2
    np.testing.assert_array_equal(first, expected(1, 1.0))
    np.testing.assert_array_equal(second, expected(1, 2.0))


def test_every_batch_size_gets_its_own_graph(session: TensorRtSession, gpu: FakeCuda) -> None:
    for batch in (1, 16, 3, 1):
        np.testing.assert_array_equal(session.run(images(batch, 0.5)), expected(batch, 0.5))
    assert gpu.launched == 4
    assert len(gpu.memory) == 4  # input and output, on host and GPU: smaller batches use the largest's buffers
    with pytest.raises(BackendError, match="batch 65 is larger than the engine's maximum of 64"):
        session.run(images(65, 0.0))


def test_work_is_enqueued_call_by_call_if_no_graph_can_be_captured(gpu: FakeCuda, tmp_path: Path) -> None:
    gpu.refuses_graphs = True
    with make(gpu, tmp_path) as session:
        np.testing.assert_array_equal(session.run(images(1, 1.0)), expected(1, 1.0))
        assert session.facts["mode"] == (
            "stream, since no CUDA graph can be captured: cudaStreamEndCapture failed"
            " (cudaError 901, cudaErrorStreamCaptureInvalidated)"
        )
        assert session.device_times(images(1, 1.0), 2) == (DeviceCall(1.0, 3.0, 1.0),) * 2
    assert gpu.launched == 0


def test_events_time_the_parts_of_a_call(session: TensorRtSession, gpu: FakeCuda) -> None:
    assert isinstance(session, OnDevice)
    assert session.device_times(images(2, 1.0), 3) == (DeviceCall(1.0, 3.0, 1.0),) * 3
    assert gpu.launched == 4
    np.testing.assert_array_equal(session.run(images(2, 1.0)), expected(2, 1.0))


def test_the_profiler_runs_calls_without_the_graph(session: TensorRtSession, gpu: FakeCuda) -> None:
    assert session.executed() == (Executed(("stem.conv",), "conv", "fp16"),)
    (node,) = session.profile(images(1, 1.0), 5)
    assert (node.names, node.median_ms) == (("stem.conv",), 0.5)
    assert gpu.launched == 0


def test_kernels_compiled_just_in_time_are_cached_for_the_next_session(gpu: FakeCuda, tmp_path: Path) -> None:
    for origin in ("compiled", "from the cache"):
        engine = Engine(gpu)
        with make(gpu, tmp_path, RTX, engine) as session:
            assert session.facts["kernels"] == origin
            assert engine.config.dynamic_shapes_kernel_specialization_strategy == Specialization.EAGER
    assert (tmp_path / "key.kernels").read_bytes() == b"kernels of a run a run "
    (tmp_path / "key.kernels").write_bytes(b"malicious")
    make(gpu, tmp_path, RTX).close()
    assert (tmp_path / "key.kernels").read_bytes() == b"kernels of a run "
