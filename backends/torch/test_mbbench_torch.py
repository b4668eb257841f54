from types import SimpleNamespace

import pytest
from mbbench_torch import CompiledBackend, _node_times

from mbbench.backend import Artifact, Backend, Executed, NodeTime, Session, Stage
from mbbench.errors import BackendError
from mbbench.testing import BackendContract


class TestTorch(BackendContract):
    name = "torch"

    def test_facts_report_the_mode_and_the_layout(self, opened: tuple[Session, list[Stage]]) -> None:
        facts = {"precision": "float32", "threads": "1", "mode": "compile", "layout": "channels-last"}
        assert opened[0].facts == facts

    def test_opening_leaves_nothing_to_compile(self, opened: tuple[Session, list[Stage]]) -> None:
        from torch._dynamo.utils import counters

        compiled = counters["stats"]["unique_graphs"]
        opened[0].run(self._images(1))
        assert counters["stats"]["unique_graphs"] == compiled > 0

    def test_a_second_session_leaves_the_first_compiled(self, backend: Backend, artifact: Artifact) -> None:
        from torch._dynamo.utils import counters

        with (
            backend.open(artifact, "", threads=1, stage=lambda _: None) as first,
            backend.open(artifact, "", threads=1, stage=lambda _: None) as second,
        ):
            compiled = counters["stats"]["unique_graphs"]
            for session in (first, second, first):
                session.run(self._images(1))
            assert counters["stats"]["unique_graphs"] == compiled


class TestTorchEager(BackendContract):
    name = "torch-eager"

    def test_facts_report_the_mode_and_the_layout(self, opened: tuple[Session, list[Stage]]) -> None:
        facts = {"precision": "float32", "threads": "1", "mode": "eager", "layout": "channels-last"}
        assert opened[0].facts == facts


def test_without_a_compiler_the_remedy_names_eager_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(BackendError) as caught:
        CompiledBackend().devices()
    assert caught.value.cause == "torch.compile needs a C++ compiler, and no-such-compiler is not on the PATH"
    assert "--backend torch-eager" in caught.value.remedy


def event(name: str, start: float, us: float, *children: SimpleNamespace) -> SimpleNamespace:
    return SimpleNamespace(
        name=name, time_range=SimpleNamespace(start=start, elapsed_us=lambda: us), cpu_children=list(children)
    )


def call(stem: float, classifier: float) -> SimpleNamespace:
    convolution = event("aten::conv2d", 1, stem, event("aten::_convolution", 2, stem / 2))
    product = event("Torch-Compiled Region", 9, classifier + 8, event("mkldnn::_linear_pointwise", 10, classifier))
    return event("call", 0, 9999, product, event("aten::to", 5, 3), convolution)  # not in chronological order


EXECUTED = (Executed(("stem",), "conv", "fp32"), Executed(("classifier",), "linear", "int8"))


def test_events_are_matched_to_layers_by_order_and_the_rest_to_operators() -> None:
    assert _node_times([call(20, 40), call(30, 50), call(90, 45)], EXECUTED) == (
        NodeTime(("stem",), "conv", "fp32", 0.03),
        NodeTime(("classifier",), "linear", "int8", 0.045),
        NodeTime((), "aten::to", "unknown", 0.003),
        NodeTime((), "Torch-Compiled Region", "unknown", 0.008),
    )


def test_a_different_number_of_events_than_layers_gives_no_times() -> None:
    assert _node_times([call(20, 40)], EXECUTED[:1]) == ()
