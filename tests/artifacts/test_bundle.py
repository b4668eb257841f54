"""A file of the user's own and back: whole on ONNX Runtime, and what is held against a file that is code."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import msgspec
import pytest

from mbbench import registry, store
from mbbench.artifacts import bundle
from mbbench.artifacts.bundle import Sidecar, read, write
from mbbench.backend import AheadOfTime, Artifact, Converter, Dialect, Format
from mbbench.errors import BackendError, UsageError
from mbbench.events import Event
from mbbench.plan import plan
from mbbench.profile import Profile
from mbbench.run import run
from mbbench.spec import Precision, RunSpec, Settings
from mbbench.testing import FakeBackend

PROFILE = Profile(
    alpha=(0.25,),
    res=(32,),
    backend=("onnxruntime",),
    weights="random",
    calibration="random",
    images=40,
    settings=Settings(min_samples=20, min_s=0.01, max_s=1.0, warmup_max_s=0.5, throughput_s=0.05, bulk_batch=8),
)


def quiet(event: Event) -> None:
    pass


class Builder(FakeBackend, AheadOfTime):
    """Has no device here, and builds for two that are elsewhere."""

    builds: ClassVar[Format] = "engine"

    def devices(self) -> Mapping[str, str]:
        raise BackendError("no GPU was found", "buy one")

    def precisions(self, device: str) -> frozenset[Precision]:
        return frozenset({"fp32", "fp16"} if device == "8.9" else {"fp32"})

    def dialects(self, device: str) -> Mapping[Precision, Dialect]:
        return {"fp32": "fp32", "fp16": "fp16"}

    def build(self, artifact: Artifact, target: Path, device: str) -> None:
        target.write_text(f"{artifact.dialect} for {device}, tuned for {artifact.batch}")


class Converting(FakeBackend, Converter):
    makes: ClassVar[Format] = "tflite"

    def tools(self) -> Mapping[str, str]:
        return {"a converter": "2"}

    def convert(self, artifact: Artifact, target: Path) -> None:
        target.write_text(f"{artifact.dialect} from {artifact.format}")


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Built here."""
    monkeypatch.setattr(registry, "load", lambda name: Builder())
    target = tmp_path / "mine.engine"
    write(_spec(precision=("fp16",), settings=Settings(batch=2)), target, "8.9", quiet)
    return target


def _spec(**changes: object) -> RunSpec:
    return plan(replace(PROFILE, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_what_is_exported_is_what_a_run_measures(tmp_path: Path, precision: Precision) -> None:
    target = tmp_path / "mine.onnx"
    sidecar = write(_spec(precision=(precision,)), target, None, quiet)
    assert sidecar == msgspec.json.decode((tmp_path / "mine.onnx.json").read_bytes(), type=Sidecar)
    assert (sidecar.artifact.format, sidecar.artifact.size_bytes) == ("onnx", target.stat().st_size)
    assert sidecar.cell.model.classes == 10
    assert (sidecar.quantization is None) == (precision == "fp32")
    assert set(sidecar.versions) == {"mbbench", "numpy", "torch", "onnxruntime"}

    given = read(target, trust=False)
    asked = bundle.profile_of(replace(PROFILE, alpha=(1.0,), precision=("bf16",), weights=None), given.sidecar)
    (result,) = run(plan(asked), tmp_path / "results.jsonl", quiet, artifact=given)
    assert result.failure is None
    assert result.cell == sidecar.cell
    assert result.artifact == sidecar.artifact
    assert store.read(tmp_path / "results.jsonl") == [result]


def test_a_run_of_a_file_measures_that_file_and_no_other(tmp_path: Path) -> None:
    target = tmp_path / "mine.onnx"
    write(_spec(), target, None, quiet)
    target.write_bytes(b"no model at all")
    given = read(target, trust=True)
    (result,) = run(_spec(), tmp_path / "results.jsonl", quiet, artifact=given)
    assert result.failure is not None
    assert str(target) in result.failure.cause


def test_other_weights_than_the_files_are_refused_before_anything_is_measured(tmp_path: Path) -> None:
    target = tmp_path / "mine.onnx"
    sidecar = write(_spec(), target, None, quiet)
    other = replace(sidecar, weights=replace(sidecar.weights, key="another"))
    (tmp_path / "mine.onnx.json").write_bytes(msgspec.json.encode(other))
    with pytest.raises(UsageError) as caught:
        list(run(_spec(), tmp_path / "results.jsonl", quiet, artifact=read(target, trust=False)))
    assert str(caught.value) == (
        "mine.onnx holds other weights (random, another); give the --weights and --data that it was exported with"
    )


def test_what_a_backend_converts_is_exported_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "load", lambda name: Converting())
    sidecar = write(_spec(), tmp_path / "mine.tflite", None, quiet)
    assert (tmp_path / "mine.tflite").read_text() == "fp32 from onnx"
    assert sidecar.artifact.format == "tflite"
    assert sidecar.versions["a converter"] == "2"


def test_an_engine_is_built_for_a_device_that_is_not_here(engine: Path) -> None:
    assert engine.read_text() == "fp16 for 8.9, tuned for 2"
    given = read(engine, trust=False)
    assert (given.sidecar.device, given.sidecar.batch) == ("8.9", 2)
    assert (given.exported.info.format, given.exported.info.dialect) == ("engine", "fp16")
    assert given.exported.path == engine


def test_an_engine_from_elsewhere_is_opened_only_on_trust(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MBBENCH_CACHE", str(tmp_path / "another machine"))
    with pytest.raises(UsageError) as caught:
        read(engine, trust=False)
    assert str(caught.value) == (
        f"{engine} is code that was not built on this machine, and opening it runs that code; give --trust if you know who built it"
    )
    assert read(engine, trust=True).exported.path == engine


def test_an_engine_that_was_changed_is_opened_only_on_trust(engine: Path) -> None:
    engine.write_text("malicious")
    with pytest.raises(UsageError, match=r"mine.engine is not the file that mine.engine.json describes; .* --trust"):
        read(engine, trust=False)
    info = read(engine, trust=True).exported.info
    assert info.size_bytes == len("malicious")
    assert info.sha256 == hashlib.sha256(b"malicious").hexdigest()


def test_a_sidecar_that_was_forged_too_vouches_for_nothing(engine: Path) -> None:
    beside = engine.with_name("mine.engine.json")
    before = read(engine, trust=False).exported.info.sha256
    engine.write_text("malicious")
    after = read(engine, trust=True).exported.info.sha256
    beside.write_text(beside.read_text().replace(before, after))
    with pytest.raises(UsageError, match="is code that was not built on this machine"):
        read(engine, trust=False)


@pytest.mark.parametrize(
    ("left", "missing"), [("mine.engine", "mine.engine.json"), ("mine.engine.json", "mine.engine")]
)
def test_a_file_without_its_sidecar_is_refused(engine: Path, left: str, missing: str) -> None:
    (engine.parent / missing).unlink()
    with pytest.raises(UsageError, match=rf"cannot read .*{missing} \(No such file or directory\); write it again"):
        read(engine, trust=True)


def test_a_sidecar_that_says_nothing_is_refused_in_one_line(engine: Path) -> None:
    engine.with_name("mine.engine.json").write_text("{}")
    with pytest.raises(UsageError, match=r"does not describe mine\.engine") as caught:
        read(engine, trust=True)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_exported_is_refused_before_it_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "mine"
    with pytest.raises(UsageError, match="2 cells do not fit one file"):
        write(_spec(alpha=(0.25, 0.5)), target, None, quiet)
    with pytest.raises(UsageError, match="onnxruntime builds nothing ahead of time; leave out --compute-capability"):
        write(_spec(), target, "8.9", quiet)
    monkeypatch.setattr(registry, "load", lambda name: Builder())
    with pytest.raises(BackendError, match=r"no native fp16 on 7\.5"):
        write(_spec(precision=("fp16",)), target, "7.5", quiet)
    with pytest.raises(BackendError, match="no GPU was found"):
        write(_spec(), target, None, quiet)
    assert not list(tmp_path.iterdir())
