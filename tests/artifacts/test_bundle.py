"""Exporting a cell to a file and reading it back, on ONNX Runtime and for files that are code."""

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import msgspec
import numpy as np
import onnx
import pytest
import torch

from mbbench import preflight, registry, store, weights
from mbbench.artifacts import bundle, prepare
from mbbench.artifacts.bundle import Sidecar, read, write
from mbbench.backend import AheadOfTime, Artifact, Converter, Dialect, Format
from mbbench.data.feed import to_float
from mbbench.errors import BackendError, UsageError
from mbbench.events import Event
from mbbench.graphs.onnx import to_onnx
from mbbench.models import default_preprocessing
from mbbench.models.cost import cost_of
from mbbench.plan import plan
from mbbench.profile import Profile
from mbbench.result import Candidate, QuantizationInfo
from mbbench.run import run
from mbbench.spec import ModelSpec, Precision, Preprocessing, RunSpec, Settings
from mbbench.testing import FakeBackend

MODEL = ModelSpec(alpha=0.25, resolution=32, classes=10)
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

    exported = read(target, trust=False, images=False)
    profile = bundle.profile_of(replace(PROFILE, alpha=(1.0,), precision=("bf16",), weights=None), exported.sidecar)
    (result,) = run(plan(profile), tmp_path / "results.jsonl", ignore, artifact=exported)
    assert result.failure is None
    assert result.cell == sidecar.cell
    assert result.artifact == sidecar.artifact
    assert result.data is not None and (result.data.name, result.data.images) == ("digits", 40)
    assert store.read(tmp_path / "results.jsonl") == [result]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_file_is_measured_on_its_own_images_without_data_weights_or_quantization(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: Precision
) -> None:
    target = tmp_path / "mine.onnx"
    checkpoint = shutil.copy(weights.random(MODEL).path, tmp_path / "mine.safetensors")
    sidecar = write(_spec(precision=(precision,), weights=str(checkpoint)), target, None, ignore)
    with np.load(tmp_path / "mine.onnx.npz") as file:
        arrays = dict(file)
    assert (arrays["images"].dtype, arrays["images"].shape) == (np.uint8, (16, 32, 32, 3))
    pixels = torch.from_numpy(to_float(arrays["images"], default_preprocessing("mobilenet_v1")))
    with torch.inference_mode():
        torch_logits = weights.random(MODEL).build()(pixels).numpy()
    np.testing.assert_allclose(arrays["logits"], torch_logits, rtol=1e-4, atol=1e-5)

    for name in ("resolve_weights", "quantize", "export"):
        monkeypatch.setattr(prepare, name, lambda *_, name=name: pytest.fail(f"{name} was called"))
    Path(checkpoint).unlink()
    exported = read(target, trust=False)
    profile = bundle.profile_of(Profile(data="no such folder", settings=PROFILE.settings), exported.sidecar)
    (result,) = run(plan(profile), tmp_path / "results.jsonl", ignore, artifact=exported)
    assert result.failure is None
    assert (result.weights, result.quantization) == (sidecar.weights, sidecar.quantization)
    assert result.data is not None and sidecar.images_sha256 is not None
    assert (result.data.images, result.data.fingerprint) == (16, sidecar.images_sha256[:16])
    measured = result.measured
    assert measured.parity is not None and measured.accuracy is not None and measured.latency is not None
    assert (measured.parity.images, measured.accuracy.images) == (16, 16)
    assert (measured.accuracy.top1, measured.accuracy.drop) == (None, None)
    assert result.reasons["accuracy.top1"] == "the artifact's sidecar has no labels"
    # Parity compares with the Q/DQ graph, agreement with PyTorch's fp32.
    expected = arrays["expected"] if precision == "int8" else arrays["logits"]
    assert measured.parity.tolerance == pytest.approx(np.abs(expected).max() * (0.25 if precision == "int8" else 1e-3))
    rounding = np.abs(expected - arrays["logits"]).max()
    assert (rounding > 0) == (precision == "int8")
    assert measured.parity.max_abs_error is not None
    assert abs(measured.accuracy.max_abs_logit_error - rounding) <= measured.parity.max_abs_error + 1e-6


def test_a_network_in_a_file_is_measured_on_a_machine_that_has_only_its_artifact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, target = tmp_path / "net.onnx", tmp_path / "mine.onnx"
    onnx.save(to_onnx(weights.random(MODEL).build(), MODEL.resolution), network)
    profile = replace(PROFILE, model=(str(network),), res=(), weights=None)
    sidecar = write(plan(profile), target, None, ignore)
    counted = sidecar.cost
    assert counted is not None and counted.mult_adds == cost_of(MODEL).mult_adds

    monkeypatch.setenv("MBBENCH_CACHE", str(tmp_path / "elsewhere"))
    cost_of.cache_clear()
    exported = read(target, trust=False)
    profile = bundle.profile_of(Profile(settings=PROFILE.settings), exported.sidecar)
    spec = plan(profile, models=(exported.sidecar.cell.model,))
    preflight.require_measurable(spec, tmp_path / "results.jsonl", own_images=True)
    (result,) = run(spec, tmp_path / "results.jsonl", ignore, artifact=exported)
    assert result.failure is None
    assert result.cost == counted.info
    assert result.executed is not None and [share.mult_adds_share for share in result.executed.shares] == [1.0]

    monkeypatch.setenv("MBBENCH_CACHE", str(tmp_path / "a third machine"))
    cost_of.cache_clear()
    without = replace(exported, sidecar=replace(exported.sidecar, cost=None))  # as of an older version
    with pytest.raises(UsageError, match=r"net is not in this machine's cache; run it with --model net.onnx"):
        list(run(spec, tmp_path / "results.jsonl", ignore, artifact=without))
    cost_of.cache_clear()


def test_a_few_images_of_a_sidecar_cannot_be_chosen(tmp_path: Path) -> None:
    target = tmp_path / "mine.onnx"
    write(_spec(), target, None, ignore)
    with pytest.raises(UsageError, match="--images is below the number of images in the sidecar, 16: 15; leave it out"):
        list(run(_spec(images=15), tmp_path / "results.jsonl", ignore, artifact=read(target, trust=False)))


def test_a_sidecar_of_an_older_version_has_no_images(tmp_path: Path) -> None:
    target = tmp_path / "mine.onnx"
    write(_spec(), target, None, ignore)
    path = tmp_path / "mine.onnx.json"
    content = msgspec.json.decode(path.read_bytes())
    path.write_bytes(msgspec.json.encode({k: v for k, v in content.items() if k not in ("images_sha256", "data")}))
    exported = read(target, trust=False)
    assert exported.images is None
    (result,) = run(_spec(), tmp_path / "results.jsonl", ignore, artifact=exported)
    assert result.failure is None
    assert result.data is not None and (result.data.name, result.data.images) == ("digits", 40)


def test_changed_missing_or_unsuitable_images_are_refused(tmp_path: Path) -> None:
    target, images_path = tmp_path / "mine.onnx", tmp_path / "mine.onnx.npz"
    write(_spec(), target, None, ignore)
    with np.load(images_path) as file:
        arrays = dict(file)
    np.savez(images_path, **arrays | {"logits": arrays["logits"] + 1})
    with pytest.raises(
        UsageError, match=r"mine\.onnx\.npz is not the file that mine\.onnx\.json describes; .* --trust"
    ):
        read(target, trust=False)
    trusted = read(target, trust=True).images
    assert trusted is not None
    np.testing.assert_array_equal(np.load(trusted.logits), arrays["logits"] + 1)
    for name, array in (
        ("images", arrays["images"][:, :16]),
        ("images", arrays["images"].astype(np.float32)),
        ("logits", arrays["logits"][:, :5]),
        ("logits", arrays["logits"][:3]),
        ("images", np.array([None], object)),
    ):
        np.savez(images_path, **arrays | {name: array})
        with pytest.raises(UsageError, match=r"mine\.onnx\.npz does not hold .*; write it again"):
            read(target, trust=True)
    images_path.write_bytes(b"PK no zip")
    with pytest.raises(UsageError, match=r"mine\.onnx\.npz does not hold arrays"):
        read(target, trust=True)
    images_path.unlink()
    with pytest.raises(UsageError, match=r"cannot read .*mine\.onnx\.npz \(No such file or directory\)"):
        read(target, trust=True)
    assert read(target, trust=False, images=False).images is None


@pytest.mark.parametrize("images", [True, False])
def test_a_files_precision_is_judged_by_its_own_quantization(tmp_path: Path, images: bool) -> None:
    """The file is fp32 under an INT8 sidecar: only a sidecar that lists all layers as kept in fp32 allows that."""
    target = tmp_path / "mine.onnx"
    sidecar = write(_spec(), target, None, ignore)
    candidate = Candidate(ranges="mse", equalized=False, corrected=False, share=1.0, logit_rmse=0.1)
    layers = tuple(layer.name for layer in cost_of(MODEL).layers)
    for kept in (layers, ()):
        quantization = QuantizationInfo(
            calibration="elsewhere", calibration_fingerprint="ff", images=1, held_out=1, judged_by="top1",
            chosen=candidate, candidates=(candidate,), kept_fp32=kept,
        )  # fmt: skip
        changed = replace(sidecar, cell=replace(sidecar.cell, precision="int8"), quantization=quantization)
        (tmp_path / "mine.onnx.json").write_bytes(msgspec.json.encode(changed))
        exported = read(target, trust=False, images=images)
        spec = replace(plan(bundle.profile_of(PROFILE, exported.sidecar)), require_effective=True)
        (result,) = run(spec, tmp_path / "results.jsonl", ignore, artifact=exported)
        assert result.quantization == quantization
        if kept:
            assert result.failure is None
        else:
            assert result.failure is not None
            assert result.failure.cause.startswith("the cell did not run entirely in int8: 100.0 % of Mult-Adds")


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
        list(run(_spec(), tmp_path / "results.jsonl", ignore, artifact=read(target, trust=False, images=False)))
    assert str(caught.value) == (
        "mine.onnx was exported from other weights (random, another); give the --weights and --data of that export"
    )


def test_a_converters_artifact_is_exported_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "load", lambda name: Converting())
    sidecar = write(_spec(), tmp_path / "mine.tflite", None, ignore)
    assert (tmp_path / "mine.tflite").read_text() == "fp32 from onnx"
    assert sidecar.artifact.format == "tflite"
    assert sidecar.versions["a converter"] == "2"


@pytest.mark.usefixtures("faulty_backends")
def test_a_file_in_a_third_partys_format_is_opened_elsewhere_only_with_trust(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "network.mine"
    assert write(_spec(backend=("faulty-converter",)), target, None, ignore).artifact.format == "mine"
    assert read(target, trust=False).exported.path == target
    monkeypatch.setenv("MBBENCH_CACHE", str(tmp_path / "another machine"))
    with pytest.raises(
        UsageError, match=r"network\.mine was not built on this machine, .* the format mine may run code"
    ):
        read(target, trust=False)
    assert read(target, trust=True).exported.info.format == "mine"


@pytest.mark.usefixtures("faulty_backends")
def test_a_runtime_that_fails_while_it_lists_its_devices_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="backend faulty-devices failed while listing its devices: RuntimeError"):
        write(_spec(backend=("faulty-devices",)), tmp_path / "network.onnx", None, ignore)


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
        f"{engine} was not built on this machine, and opening a file in the format engine may run code from it;"
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
    with pytest.raises(UsageError, match="was not built on this machine"):
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


def test_a_file_keeps_its_preprocessing(tmp_path: Path) -> None:
    target, special = tmp_path / "mine.onnx", Preprocessing(mean=(0.1, 0.2, 0.3), channels="bgr")
    sidecar = write(_spec(mean=special.mean, channels="bgr"), target, None, ignore)
    assert sidecar.preprocessing == special
    exported = read(target, trust=False)
    profile = bundle.profile_of(Profile(settings=PROFILE.settings), exported.sidecar)
    (result,) = run(plan(profile), tmp_path / "results.jsonl", ignore, artifact=exported)
    assert result.failure is None
    assert result.preprocessing == special
    assert result.measured.accuracy is not None and result.measured.accuracy.agreement == 1.0
    overridden = bundle.profile_of(Profile(mean=(0.5, 0.5, 0.5)), exported.sidecar)
    assert (overridden.mean, overridden.channels) == ((0.5, 0.5, 0.5), "bgr")
    assert write(_spec(), tmp_path / "usual.onnx", None, ignore).preprocessing is None
