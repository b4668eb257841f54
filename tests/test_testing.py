"""The conformance suite rejects backends that break the contract: each of its tests fails here at least once."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from mbbench import registry
from mbbench.backend import (
    Artifact,
    Backend,
    Converter,
    Dialect,
    Executed,
    Format,
    LayerAudit,
    LayerProfile,
    NodeTime,
    Session,
    Stage,
)
from mbbench.errors import BackendError
from mbbench.spec import ModelSpec, Precision
from mbbench.testing import BackendContract, FakeBackend, FakeClock

ARTIFACT = Artifact(Path("model.onnx"), "onnx", "fp32", "fp32", ModelSpec(alpha=0.25, resolution=32, classes=7), 1, "")
IMAGES = np.zeros((2, 3, 32, 32), np.float32)


def test_the_fake_takes_its_scripted_latencies_and_then_repeats_the_last() -> None:
    clock = FakeClock()
    stages: list[Stage] = []
    with FakeBackend((3.0, 1.5), clock).open(ARTIFACT, "", threads=1, stage=stages.append) as session:
        times = [(session.run(IMAGES), clock.now_ns)[1] for _ in range(3)]
        assert session.run(IMAGES).shape == (2, 7)
    assert times == [3_000_000, 4_500_000, 6_000_000]
    assert stages == ["import", "load", "compile"]


class BadSession(Session, LayerAudit, LayerProfile):
    """Returns the same buffer every time, with the wrong type and shape; profiles a node it does not execute."""

    facts: Mapping[str, str] = {"precision": ""}

    def __init__(self) -> None:
        self._buffer = np.zeros((1, 10))

    def run(self, images: NDArray[np.float32]) -> NDArray[Any]:
        time.sleep(0.001)  # the time it reports for its node: only the name is wrong
        self._buffer += 1
        return self._buffer

    def executed(self) -> tuple[Executed, ...]:
        return ()

    def profile(self, images: NDArray[np.float32], runs: int) -> tuple[NodeTime, ...]:
        return (NodeTime(("stem.conv",), "Conv", "fp32", 1.0),)


class BadBackend(Backend):
    formats: ClassVar[tuple[Format, ...]] = ()

    def versions(self) -> Mapping[str, str]:
        return {}

    def devices(self) -> Mapping[str, str]:
        return {"cpu": ""}

    def precisions(self, device: str) -> frozenset[Precision]:
        return frozenset({"int8"})

    def open(self, artifact: Artifact, device: str, *, threads: int, stage: Callable[[Stage], None]) -> Session:
        stage("compile")
        return BadSession()


def contract_tests() -> list[str]:
    return [name for name in dir(BackendContract) if name.startswith("test_")]


@pytest.mark.parametrize("name", contract_tests())
def test_every_test_of_the_suite_rejects_a_bad_backend(name: str, tmp_path: Path) -> None:
    test = getattr(BackendContract(), name)
    stages: list[Stage] = []
    session = BadBackend().open(ARTIFACT, "", threads=1, stage=stages.append)
    (tmp_path / "model.onnx").write_bytes(b"")
    fixtures: dict[str, Any] = {
        "backend": BadBackend(),
        "artifact": replace(ARTIFACT, path=tmp_path / "model.onnx"),
        "opened": (session, stages),
        "tmp_path": tmp_path,
        "batch": 1,
        "monkeypatch": pytest.MonkeyPatch(),
    }
    arguments = test.__code__.co_varnames[1 : test.__code__.co_argcount]
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        test(**{argument: fixtures[argument] for argument in arguments})


def test_times_in_the_wrong_unit_are_rejected() -> None:
    class Microseconds(BadSession):
        def executed(self) -> tuple[Executed, ...]:
            return (Executed(("stem.conv",), "Conv", "fp32"),)

        def profile(self, images: NDArray[np.float32], runs: int) -> tuple[NodeTime, ...]:
            return (NodeTime(("stem.conv",), "Conv", "fp32", 1000.0),)

    with pytest.raises(AssertionError):
        BackendContract().test_profiled_nodes_are_executed_nodes((Microseconds(), []))


class OwnFormat(FakeBackend, Converter):
    makes: ClassVar[Format] = "mine"

    def tools(self) -> Mapping[str, str]:
        return {"mine": "1"}

    def convert(self, artifact: Artifact, target: Path) -> None:
        target.touch()


def test_a_converter_may_have_a_format_of_its_own() -> None:
    class OpensIt(OwnFormat):
        formats: ClassVar[tuple[Format, ...]] = ("onnx", "mine")

    BackendContract().test_formats_are_known(OwnFormat())
    BackendContract().test_formats_are_known(OpensIt())


@pytest.mark.parametrize("name", ["", "a/b", "..\\b"])
def test_a_converters_format_that_is_no_suffix_is_rejected(name: str) -> None:
    class BadName(OwnFormat):
        makes: ClassVar[Format] = name

    with pytest.raises(AssertionError, match="is not the suffix of a file"):
        BackendContract().test_formats_are_known(BadName())


@pytest.mark.parametrize("names", [("mine",), ("onnx", "mine"), ("tflite",)])
def test_a_format_that_mbbench_does_not_export_is_rejected(names: tuple[Format, ...]) -> None:
    class Unknown(FakeBackend):
        formats: ClassVar[tuple[Format, ...]] = names

    with pytest.raises(AssertionError):
        BackendContract().test_formats_are_known(Unknown())


def test_a_converter_must_convert_a_format_that_mbbench_exports() -> None:
    class Circular(OwnFormat):
        formats: ClassVar[tuple[Format, ...]] = ("mine",)

    with pytest.raises(AssertionError):
        BackendContract().test_formats_are_known(Circular())


class FalseInt8(FakeBackend):
    """Correct in fp32; claims INT8 but returns zeros."""

    def precisions(self, device: str) -> frozenset[Precision]:
        return frozenset({"fp32", "int8"})

    def dialects(self, device: str) -> Mapping[Precision, Dialect]:
        return {"fp32": "fp32", "int8": "u8s8"}

    def open(self, artifact: Artifact, device: str, *, threads: int, stage: Callable[[Stage], None]) -> Session:
        if artifact.precision == "fp32":
            return registry.load("onnxruntime").open(artifact, device, threads=threads, stage=stage)
        return super().open(artifact, device, threads=threads, stage=stage)


def test_a_backend_that_returns_zeros_in_a_claimed_precision_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(AssertionError, match="int8"):
        BackendContract().test_every_claimed_precision_is_executed(FalseInt8(), tmp_path, monkeypatch)


def test_a_backend_that_cannot_start_is_skipped_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoDevice(FakeBackend):
        def devices(self) -> Mapping[str, str]:
            raise BackendError("no GPU was found", "plug one in")

    class Contract(BackendContract):
        name = "fake"

    monkeypatch.setattr(registry, "load", lambda name: NoDevice())
    with pytest.raises(pytest.skip.Exception, match="fake cannot start here: no GPU was found; plug one in"):
        Contract.backend.__wrapped__.__get__(None, Contract)()  # type: ignore[attr-defined]
