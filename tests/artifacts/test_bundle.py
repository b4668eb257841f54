"""Exporting a cell to a file and reading it back, on ONNX Runtime and for files that are code."""

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


def ignore(event: Event) -> None:
    pass


class Builder(FakeBackend, AheadOfTime):
    """Has no device here, and builds for the compute capabilities 8.9 and 7.5."""

    builds: ClassVar[Format] = "engine"

    def devices(self) -> Mapping[str, str]:
        raise BackendError("no GPU was found", "use a machine with a GPU")

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
    """An engine that was built on this machine."""
    monkeypatch.setattr(registry, "load", lambda name: Builder())
    target = tmp_path / "mine.engine"
    write(_spec(precision=("fp16",), settings=Settings(batch=2)), target, "8.9", ignore)
    return target


def _spec(**changes: object) -> RunSpec:
    return plan(replace(PROFILE, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_run_measures_the_exported_file(tmp_path: Path, precision: Precision) -> None:
    target = tmp_path / "mine.onnx"
    sidecar = write(_spec(precision=(precision,)), target, None, ignore)
    assert sidecar == msgspec.json.decode((tmp_path / "mine.onnx.json").read_bytes(), type=Sidecar)
    assert (sidecar.artifact.format, sidecar.artifact.size_bytes) == ("onnx", target.stat().st_size)
    assert sidecar.cell.model.classes == 10
    assert (sidecar.quantization is None) == (precision == "fp32")
    assert set(sidecar.versions) == {"mbbench", "numpy", "torch", "onnxruntime"}

    exported = read(target, trust=False)
    profile = bundle.profile_of(replace(PROFILE, alpha=(1.0,), precision=("bf16",), weights=None), exported.sidecar)
    (result,) = run(plan(profile), tmp_path / "results.jsonl", ignore, artifact=exported)
    assert result.failure is None
    assert result.cell == sidecar.cell
    assert result.artifact == sidecar.artifact
    assert store.read(tmp_path / "results.jsonl") == [result]


def test_a_run_of_a_file_never_exports_another_in_its_place(tmp_path: Path) -> None:
    target = tmp_path / "mine.onnx"
    write(_spec(), target, None, ignore)
    target.write_bytes(b"not a model")
    exported = read(target, trust=True)
    (result,) = run(_spec(), tmp_path / "results.jsonl", ignore, artifact=exported)
    assert result.failure is not None
    assert str(target) in result.failure.cause


def test_weights_other_than_the_files_are_refused_before_anything_is_measured(tmp_path: Path) -> None:
    target = tmp_path / "mine.onnx"
    sidecar = write(_spec(), target, None, ignore)
    other = replace(sidecar, weights=replace(sidecar.weights, key="another"))
    (tmp_path / "mine.onnx.json").write_bytes(msgspec.json.encode(other))
    with pytest.raises(UsageError) as caught:
        list(run(_spec(), tmp_path / "results.jsonl", ignore, artifact=read(target, trust=False)))
    assert str(caught.value) == (
        "mine.onnx was exported from other weights (random, another); give the --weights and --data of that export"
    )


def test_a_converters_artifact_is_exported_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "load", lambda name: Converting())
    sidecar = write(_spec(), tmp_path / "mine.tflite", None, ignore)
    assert (tmp_path / "mine.tflite").read_text() == "fp32 from onnx"
    assert sidecar.artifact.format == "tflite"
    assert sidecar.versions["a converter"] == "2"


def test_an_engine_is_built_for_an_absent_device(engine: Path) -> None:
    assert engine.read_text() == "fp16 for 8.9, tuned for 2"
    bundled = read(engine, trust=False)
    assert (bundled.sidecar.device, bundled.sidecar.batch) == ("8.9", 2)
    assert (bundled.exported.info.format, bundled.exported.info.dialect) == ("engine", "fp16")
    assert bundled.exported.path == engine


def test_an_engine_from_another_machine_is_opened_only_with_trust(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MBBENCH_CACHE", str(tmp_path / "another machine"))
    with pytest.raises(UsageError) as caught:
        read(engine, trust=False)
    assert str(caught.value) == (
        f"{engine} is code that was not built on this machine, and opening it runs that code;"
        " give --trust if you know who built it"
    )
    assert read(engine, trust=True).exported.path == engine


def test_a_changed_engine_is_opened_only_with_trust(engine: Path) -> None:
    engine.write_text("malicious")
    with pytest.raises(UsageError, match=r"mine.engine is not the file that mine.engine.json describes; .* --trust"):
        read(engine, trust=False)
    info = read(engine, trust=True).exported.info
    assert info.size_bytes == len("malicious")
    assert info.sha256 == hashlib.sha256(b"malicious").hexdigest()


def test_a_forged_sidecar_does_not_make_an_engine_trusted(engine: Path) -> None:
    sidecar = engine.with_name("mine.engine.json")
    before = read(engine, trust=False).exported.info.sha256
    engine.write_text("malicious")
    after = read(engine, trust=True).exported.info.sha256
    sidecar.write_text(sidecar.read_text().replace(before, after))
    with pytest.raises(UsageError, match="is code that was not built on this machine"):
        read(engine, trust=False)


@pytest.mark.parametrize("missing", ["mine.engine.json", "mine.engine"])
def test_a_missing_file_or_sidecar_is_refused(engine: Path, missing: str) -> None:
    (engine.parent / missing).unlink()
    with pytest.raises(UsageError, match=rf"cannot read .*{missing} \(No such file or directory\); write it again"):
        read(engine, trust=True)


def test_an_empty_sidecar_is_refused_in_one_line(engine: Path) -> None:
    engine.with_name("mine.engine.json").write_text("{}")
    with pytest.raises(UsageError, match=r"does not describe mine\.engine") as caught:
        read(engine, trust=True)
    assert "\n" not in str(caught.value)


def test_an_invalid_export_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "mine"
    with pytest.raises(UsageError, match=r"one file holds one cell \(got 2\)"):
        write(_spec(alpha=(0.25, 0.5)), target, None, ignore)
    with pytest.raises(UsageError, match="onnxruntime does not build ahead of time; leave out --compute-capability"):
        write(_spec(), target, "8.9", ignore)
    monkeypatch.setattr(registry, "load", lambda name: Builder())
    with pytest.raises(BackendError, match=r"no native fp16 on 7\.5"):
        write(_spec(precision=("fp16",)), target, "7.5", ignore)
    with pytest.raises(BackendError, match="no GPU was found"):
        write(_spec(), target, None, ignore)
    assert not list(tmp_path.iterdir())
