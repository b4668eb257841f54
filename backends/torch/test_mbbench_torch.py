import pytest
from mbbench_torch import CompiledBackend

from mbbench.backend import Session, Stage
from mbbench.errors import BackendError
from mbbench.testing import BackendContract


class TestTorch(BackendContract):
    name = "torch"

    def test_it_says_what_it_did(self, opened: tuple[Session, list[Stage]]) -> None:
        facts = {"precision": "float32", "threads": "1", "mode": "compile", "layout": "channels-last"}
        assert opened[0].facts == facts

    def test_opening_leaves_nothing_to_compile(self, opened: tuple[Session, list[Stage]]) -> None:
        from torch._dynamo.utils import counters

        compiled = counters["stats"]["unique_graphs"]
        opened[0].run(self._images(1))
        assert counters["stats"]["unique_graphs"] == compiled > 0


class TestTorchEager(BackendContract):
    name = "torch-eager"

    def test_it_says_what_it_did(self, opened: tuple[Session, list[Stage]]) -> None:
        facts = {"precision": "float32", "threads": "1", "mode": "eager", "layout": "channels-last"}
        assert opened[0].facts == facts


def test_without_a_compiler_the_remedy_names_eager_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(BackendError) as caught:
        CompiledBackend().devices()
    assert caught.value.cause == "torch.compile needs a C++ compiler and no-such-compiler is not there"
    assert "--backend torch-eager" in caught.value.remedy
