import pytest
from mbbench_torch.backend import CompiledBackend

from mbbench.backend import Artifact, Backend, Session, Stage
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

    def test_an_int8_file_of_another_dialect_is_reported_as_int8(self, backend: Backend) -> None:
        artifact = self._artifact(backend, self._exported("onnx", "int8", "u8s8"), "int8")
        with backend.open(artifact, "", threads=1, stage=lambda _: None) as session:
            assert session.facts["precision"] == "int8"


def test_without_a_compiler_the_remedy_names_eager_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(BackendError) as caught:
        CompiledBackend().devices()
    assert caught.value.cause == "torch.compile needs a C++ compiler, and no-such-compiler is not on the PATH"
    assert "--backend torch-eager" in caught.value.remedy
