"""The session's logic on a GPU simulated on the CPU, and the conformance suite on a real one (`make test-gpu`)."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from mbbench_torch import backend as backend_module
from mbbench_torch import gpu as gpu_module
from mbbench_torch.backend import CompiledBackend, EagerBackend
from mbbench_torch.gpu import GpuSession

from mbbench.backend import Artifact, Backend, DeviceCall, Executed, OnDevice, Session, Stage
from mbbench.errors import BackendError
from mbbench.nvidia import runtime
from mbbench.testing import BackendContract
from mbbench.testing.cuda import FakeCuda

SHAPE = (1, 3, 4, 4)
CPU = torch.device("cpu")


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    return install(monkeypatch)


def install(patch: pytest.MonkeyPatch) -> FakeCuda:
    """Simulate two GPUs for the backend."""
    fake = FakeCuda()
    for name, replacement in fake.replacements.items():
        patch.setattr(torch.cuda, name, replacement)
    patch.setattr(gpu_module, "_pinned", torch.empty)
    patch.setattr(backend_module, "_built_with_cuda", lambda: True)
    patch.setattr(backend_module, "_start_gpu", lambda index: (CPU, {"tf32": "off", "device": f"fake {index}"}))
    patch.setattr(runtime, "count", lambda: 2)
    patch.setattr(runtime, "gpu", lambda index: runtime.Gpu("Fake GPU", (9, 0)))
    return fake


class Network(torch.nn.Module):
    """Logit k of an image is its sum plus k."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.sum((1, 2, 3))[:, None] + torch.arange(5, dtype=images.dtype)


def make(*, graphs: bool = True, dtype: torch.dtype = torch.float32) -> GpuSession:
    facts = {"mode": "compile" if graphs else "eager"}
    return GpuSession(Network(), facts, dtype, (Executed(("stem",), "conv", "fp32"),), CPU, SHAPE, graphs=graphs)


def images(batch: int, value: float) -> Any:
    return np.full((batch, *SHAPE[1:]), value, np.float32)


def expected(batch: int, value: float) -> Any:
    return np.broadcast_to(48 * value + np.arange(5, dtype=np.float32), (batch, 5))


def test_calls_replay_a_graph_and_results_outlive_the_next_call(cuda: FakeCuda) -> None:
    with make() as session:
        assert session.facts == {"mode": "compile, CUDA graph"}
        first, second = session.run(images(1, 1.0)), session.run(images(1, 2.0))
    np.testing.assert_array_equal(first, expected(1, 1.0))
    np.testing.assert_array_equal(second, expected(1, 2.0))
    assert [graph.replays for graph in cuda.graphs] == [2]


def test_every_batch_size_gets_its_own_graph(cuda: FakeCuda) -> None:
    with make() as session:
        for batch in (1, 4, 4, 1):
            np.testing.assert_array_equal(session.run(images(batch, 0.5)), expected(batch, 0.5))
    assert [graph.replays for graph in cuda.graphs] == [1, 2, 1]


def test_eager_calls_use_no_graph(cuda: FakeCuda) -> None:
    with make(graphs=False) as session:
        assert session.facts == {"mode": "eager"}
        np.testing.assert_array_equal(session.run(images(2, 1.0)), expected(2, 1.0))
    assert cuda.graphs == []


def test_calls_go_on_without_a_graph_if_none_can_be_captured(cuda: FakeCuda) -> None:
    cuda.refuses_graphs = True
    with make() as session:
        assert session.facts["mode"] == (
            "compile, since no CUDA graph can be captured: operation not permitted when stream is capturing"
        )
        np.testing.assert_array_equal(session.run(images(1, 1.0)), expected(1, 1.0))


@pytest.mark.parametrize("graphs", [True, False])
def test_events_time_the_three_parts_of_a_call(cuda: FakeCuda, graphs: bool) -> None:
    with make(graphs=graphs) as session:
        assert isinstance(session, OnDevice)
        assert session.device_times(images(2, 1.0), 3) == (DeviceCall(1.0, 1.0, 1.0),) * 3
        assert cuda.now == 4 * 4
        np.testing.assert_array_equal(session.run(images(2, 1.0)), expected(2, 1.0))


def test_profiled_calls_use_no_graph_and_leave_it_in_place(cuda: FakeCuda) -> None:
    with make() as session:
        assert session.profile(images(1, 1.0), 2) == ()  # no kernel runs on a GPU here
        assert [graph.replays for graph in cuda.graphs] == [0]
        np.testing.assert_array_equal(session.run(images(1, 3.0)), expected(1, 3.0))
        assert [graph.replays for graph in cuda.graphs] == [1]


def test_half_precision_computes_in_it_and_returns_fp32(cuda: FakeCuda) -> None:
    with make(dtype=torch.float16) as session:
        logits = session.run(images(1, 43.0))
    assert logits.dtype == np.float32
    np.testing.assert_array_equal(logits, [[2064, 2064, 2066, 2068, 2068]])  # fp16 has steps of 2 here


def test_the_memory_is_the_drivers_figure_for_the_sessions_gpu(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    board = SimpleNamespace(process_memory_bytes=lambda: 400_000_000)
    monkeypatch.setattr("mbbench.nvidia.nvml.Board", lambda index: board if index == CPU.index else None)
    with make() as session:
        assert session.device_memory_bytes() == 400_000_000


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "the GPU's memory is full at batch 1"),
        (
            RuntimeError("CUDA error: launch failure\nCompile with"),
            "PyTorch cannot run batch 1 on the GPU: CUDA error: launch failure",
        ),
    ],
)
def test_an_error_of_cuda_is_one_line(cuda: FakeCuda, error: Exception, cause: str) -> None:
    def fail(images: torch.Tensor) -> torch.Tensor:
        raise error

    with pytest.raises(BackendError) as caught:
        GpuSession(fail, {"mode": "eager"}, torch.float32, (), CPU, SHAPE, graphs=False)
    assert caught.value.cause == cause


def test_gpus_follow_the_cpu_and_have_the_precisions_of_tensor_cores(cuda: FakeCuda) -> None:
    for backend in (CompiledBackend(), EagerBackend()):
        assert list(backend.devices()) == ["cpu", "cuda:0", "cuda:1"]
        assert backend.devices()["cuda:1"] == "Fake GPU"
        assert backend.native("cuda:1") == {"fp32": "fp32", "bf16": "fp32", "fp16": "fp32"}


def test_an_old_gpu_has_only_fp32(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "gpu", lambda index: runtime.Gpu("Old GPU", (6, 1)))
    assert CompiledBackend().precisions("cuda:0") == {"fp32"}


def test_without_a_driver_or_cuda_there_is_only_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_driver() -> int:
        raise BackendError("no NVIDIA driver was found (cudaError 35)", runtime.DRIVER)

    monkeypatch.setattr(runtime, "count", no_driver)
    monkeypatch.setattr(backend_module, "_built_with_cuda", lambda: True)
    assert list(EagerBackend().devices()) == ["cpu"]
    monkeypatch.setattr(runtime, "count", lambda: 1)
    monkeypatch.setattr(backend_module, "_built_with_cuda", lambda: False)
    assert list(EagerBackend().devices()) == ["cpu"]


class OnFakeGpu(BackendContract):
    """The conformance suite on the simulated GPU, which cannot capture what torch.compile generates."""

    device = "cuda:1"
    mode: ClassVar[str]

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def fake(cls) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            install(patch).refuses_graphs = True
            yield

    def test_profiled_nodes_are_executed_nodes(self, opened: tuple[Session, list[Stage]]) -> None:
        """No kernel runs on a GPU here, so that there are no times."""

    def test_facts_report_what_is_in_effect(self, opened: tuple[Session, list[Stage]]) -> None:
        facts = {
            "precision": "float32", "threads": "1", "mode": self.mode, "layout": "channels-last", "tf32": "off",
            "device": "fake 1",
        }  # fmt: skip
        assert opened[0].facts == facts


class TestTorchOnFakeGpu(OnFakeGpu):
    name = "torch"
    mode = "compile, since no CUDA graph can be captured: operation not permitted when stream is capturing"

    def test_opening_leaves_nothing_to_compile(self, opened: tuple[Session, list[Stage]]) -> None:
        from torch._dynamo.utils import counters

        compiled = counters["stats"]["unique_graphs"]
        opened[0].run(self._images(1))
        assert counters["stats"]["unique_graphs"] == compiled > 0

    def test_opening_compiles_once(self, backend: Backend, artifact: Artifact) -> None:
        from torch._dynamo.utils import counters

        compiled = counters["stats"]["unique_graphs"]
        backend.open(artifact, self.device, threads=1, stage=lambda _: None).close()
        assert counters["stats"]["unique_graphs"] == compiled + 1


class TestTorchEagerOnFakeGpu(OnFakeGpu):
    name = "torch-eager"
    mode = "eager"


class OnGpu(BackendContract):
    """The conformance suite on a real GPU; a machine without a GPU skips it, with the reason."""

    device = "cuda:0"
    mode: ClassVar[str]

    def test_facts_report_what_is_in_effect(self, opened: tuple[Session, list[Stage]]) -> None:
        facts = opened[0].facts
        assert (facts["mode"], facts["precision"], facts["tf32"]) == (self.mode, "float32", "off")
        assert "compute capability" in facts["device"]

    def test_the_driver_reports_the_memory(self, opened: tuple[Session, list[Stage]]) -> None:
        session = opened[0]
        assert isinstance(session, OnDevice)
        assert session.device_memory_bytes() > 10**8

    def test_calls_in_threads_do_not_mix_their_logits(self, backend: Backend, artifact: Artifact) -> None:
        with (
            backend.open(artifact, self.device, threads=1, stage=lambda _: None) as first,
            backend.open(artifact, self.device, threads=1, stage=lambda _: None) as second,
            ThreadPoolExecutor(2) as pool,
        ):
            batches = [self._images(1, seed) for seed in range(2)]
            expected = [first.run(images) for images in batches]
            for _ in range(50):
                logits = list(pool.map(lambda session, images: session.run(images), (first, second), batches))
                np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.gpu
class TestTorchOnGpu(OnGpu):
    name = "torch"
    mode = "compile, CUDA graph"


@pytest.mark.gpu
class TestTorchEagerOnGpu(OnGpu):
    name = "torch-eager"
    mode = "eager"
