"""Tests of parsing and building on every machine, and of execution on a machine with a GPU (`make test-gpu`)."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import onnx
import pytest
from mbbench_tensorrt import backend as backend_module
from mbbench_tensorrt.backend import TensorRtBackend
from mbbench_tensorrt.build import build_engine, runs_on
from mbbench_tensorrt.session import TensorRtSession
from onnx.reference import ReferenceEvaluator
from torch import nn

from mbbench.analysis.executed import audit
from mbbench.analysis.layer_times import attribute
from mbbench.artifacts import bundle
from mbbench.artifacts.export import Exported, export, export_quantized
from mbbench.backend import Artifact, Dialect, LayerAudit, LayerProfile, OnDevice
from mbbench.compress import calibrate, quantize
from mbbench.errors import BackendError
from mbbench.graphs.onnx import to_onnx
from mbbench.models import build, fold_batch_norm, randomize
from mbbench.models.cost import cost_of
from mbbench.nvidia.runtime import Gpu, count
from mbbench.plan import plan
from mbbench.profile import Profile
from mbbench.spec import ModelSpec, Padding
from mbbench.testing import BackendContract

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: run `make tensorrt`")
SHAPE = (1, 3, 32, 32)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Use a temporary cache for the module, never the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MBBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def has_gpu() -> bool:
    try:
        return count() > 0
    except BackendError:
        return False


no_gpu = pytest.mark.skipif(has_gpu(), reason="this machine has a GPU")


def small_model() -> onnx.ModelProto:
    """Return a network of convolution, ReLU6, global pooling and a fully connected layer, with a symbolic batch."""
    rng = np.random.default_rng(0)
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    constants = {
        "w": rng.normal(size=(8, 3, 3, 3)),
        "b": rng.normal(size=8),
        "low": np.float32(0),
        "high": np.float32(6),
        "fc": rng.normal(size=(8, 5)),
        "fb": rng.normal(size=5),
    }
    nodes = [
        helper.make_node("Conv", ["images", "w", "b"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Clip", ["c", "low", "high"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "fc", "fb"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["N", *SHAPE[1:]])],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["N", 5])],
        [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def artifact(folder: Path, batch: int = 1) -> Artifact:
    path = folder / "small.onnx"
    onnx.save(small_model(), path)
    return Artifact(path, "onnx", "fp32", "fp32", ModelSpec(resolution=32, classes=5), batch, "")


@pytest.mark.parametrize("capability", ["8.6", "8.9", "12.0"])
def test_an_engine_is_built_ahead_of_time_without_a_gpu(capability: str) -> None:
    engine = build_engine(small_model().SerializeToString(), SHAPE, capability)
    assert len(engine) > 1000


def exported(spec: ModelSpec, dialect: Dialect) -> Exported:
    """Return what mbbench exports for TensorRT, with random weights."""

    def module() -> nn.Module:
        network = build(spec)
        randomize(network, seed=0)
        return network

    if dialect != "s8s8":
        return export(spec, "random", "onnx", module, dialect)
    graph = to_onnx(fold_batch_norm(module()), spec.resolution)
    images = np.random.default_rng(0).uniform(-1, 1, (4, 3, spec.resolution, spec.resolution)).astype(np.float32)
    ranges = calibrate.ranges(calibrate.statistics(graph, images), "minmax")
    return export_quantized(
        lambda: quantize.write(graph, ranges, dialect), f"{spec.label} {spec.padding}", "onnx", dialect
    )


@pytest.mark.parametrize("dialect", ["fp32", "fp16", "bf16", "s8s8"])
@pytest.mark.parametrize("padding", ["symmetric", "keras"])
def test_an_exported_mobilenet_is_parsed_and_built(padding: Padding, dialect: Dialect) -> None:
    network = exported(ModelSpec(alpha=0.25, resolution=64, classes=10, padding=padding), dialect)
    assert len(build_engine(network.path.read_bytes(), (1, 3, 64, 64), "8.9")) > 100_000


def test_an_exported_googlenet_is_parsed_and_built() -> None:
    network = exported(ModelSpec("googlenet", resolution=64, classes=10), "fp32")
    assert len(build_engine(network.path.read_bytes(), (1, 3, 64, 64), "8.9")) > 20_000_000


@pytest.mark.parametrize("content", [b"no ONNX at all", b"damaged"])  # the parser takes the second for a network
def test_a_corrupt_model_is_refused_in_one_line(content: bytes) -> None:
    with pytest.raises(BackendError, match="TensorRT cannot parse the ONNX model") as caught:
        build_engine(content, SHAPE, "8.9")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("capability", "runs"),
    [((8, 0), True), ((8, 9), True), ((12, 0), True), ((13, 0), True), ((7, 0), False), ((9, 0), False),
     ((10, 0), False)],
)  # fmt: skip
def test_tensorrt_rtx_leaves_out_hopper_and_b200(capability: tuple[int, int], runs: bool) -> None:
    """On an H200, TensorRT-RTX 1.7 says: "Supported compute capabilities: 8.0 8.6 8.9 12.0 12.1 >12.0"."""
    assert runs_on(capability) is runs


def test_gpus_that_tensorrt_rtx_does_not_support_are_no_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = [Gpu("NVIDIA H200", (9, 0)), Gpu("NVIDIA L4", (8, 9))]
    monkeypatch.setattr(backend_module, "count", lambda: len(gpus))
    monkeypatch.setattr(backend_module, "gpu", lambda index: gpus[index])
    assert TensorRtBackend().devices() == {"cuda:1": "NVIDIA L4"}
    del gpus[1]
    with pytest.raises(BackendError) as caught:
        TensorRtBackend().devices()
    assert caught.value.cause == "tensorrt-rtx-cu13 does not support NVIDIA H200 (compute capability 9.0)"
    assert caught.value.remedy == "run `pip install tensorrt`, or use the backend torch"


def test_an_engine_is_exported_for_an_absent_gpu(tmp_path: Path) -> None:
    profile = Profile(alpha=(0.25,), res=(64,), backend=("tensorrt",), precision=("fp16",), weights="random", images=40)
    target = tmp_path / "model.engine"
    made = bundle.write(plan(profile), target, "8.9", lambda _: None)
    assert (made.artifact.format, made.artifact.dialect, made.device) == ("engine", "fp16", "8.9")
    assert bundle.read(target, trust=False).exported.path == target
    assert made.artifact.size_bytes > 100_000


def test_a_compute_capability_is_a_device_for_building() -> None:
    backend = TensorRtBackend()
    assert backend.native("8.9") == {"fp32": "fp32", "bf16": "bf16", "fp16": "fp16", "int8": "s8s8"}
    assert "bf16" not in backend.precisions("7.5")
    with pytest.raises(
        BackendError, match=r"TensorRT does not support compute capability 9\.9; choose one of 7\.5, 8\.0"
    ):
        backend.precisions("9.9")


def test_timings_are_stored_and_a_torn_file_is_replaced(tmp_path: Path) -> None:
    """TensorRT-RTX stores no timings, but reads and writes the file."""
    model, timings = small_model().SerializeToString(), tmp_path / "tensorrt" / "key.timings"
    build_engine(model, SHAPE, "8.9", timings)
    assert timings.stat().st_size > 0
    for content in (timings.read_bytes(), b"torn"):
        timings.write_bytes(content)
        assert len(build_engine(model, SHAPE, "8.9", timings)) > 1000
        assert timings.read_bytes() != b"torn"


def test_an_unsupported_compute_capability_is_refused_with_the_supported_ones() -> None:
    with pytest.raises(BackendError) as caught:
        build_engine(small_model().SerializeToString(), SHAPE, "9.9")
    assert caught.value.cause == "TensorRT does not support compute capability 9.9"
    assert "8.9" in caught.value.remedy


def test_a_gpu_that_cannot_run_the_model_is_refused_with_the_reason() -> None:
    with pytest.raises(BackendError, match=r"FP32 GEMM is not supported.*; choose another compute capability"):
        build_engine(small_model().SerializeToString(), SHAPE, "7.5")


def test_versions_name_the_package() -> None:
    versions = TensorRtBackend().versions()
    assert list(versions) == ["tensorrt-rtx-cu13", "cuda-bindings"]
    assert versions["tensorrt-rtx-cu13"] == metadata.version("tensorrt-rtx-cu13")


@no_gpu
def test_a_missing_driver_is_one_line_and_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BackendError, match=r"no NVIDIA (driver|GPU) was found \(cudaError \d+") as caught:
        TensorRtBackend().open(artifact(tmp_path), "", threads=1, stage=lambda _: None)
    assert caught.value.exit_code == 6
    assert "\n" not in str(caught.value)
    build_engine(small_model().SerializeToString(), SHAPE, "8.9")
    assert capfd.readouterr() == ("", "")


@pytest.mark.gpu
def test_logits_equal_the_reference_at_every_batch_size(tmp_path: Path) -> None:
    reference = ReferenceEvaluator(small_model())
    rng = np.random.default_rng(1)
    with TensorRtBackend().open(artifact(tmp_path), "", threads=1, stage=lambda _: None) as session:
        assert session.facts["mode"] == "CUDA graph"
        for batch in (1, 64, 3):
            images = rng.normal(size=(batch, *SHAPE[1:])).astype(np.float32)
            expected = reference.run(None, {"images": images})[0]  # type: ignore[index]
            np.testing.assert_allclose(session.run(images), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.gpu
def test_the_cuda_graph_gives_the_streams_logits(tmp_path: Path) -> None:
    with TensorRtBackend().open(artifact(tmp_path), "", threads=1, stage=lambda _: None) as session:
        images = np.random.default_rng(2).normal(size=SHAPE).astype(np.float32)
        by_graph = session.run(images)
        assert isinstance(session, TensorRtSession)
        session._call(None, lambda _: None)
        np.testing.assert_array_equal(session._logits, by_graph)


@pytest.mark.gpu
def test_an_engine_is_built_once_and_then_read_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MBBENCH_CACHE", str(tmp_path / "cache"))
    origins = []
    for _ in range(2):
        with TensorRtBackend().open(artifact(tmp_path), "", threads=1, stage=lambda _: None) as session:
            origins.append(session.facts["engine"])
    assert origins == ["built", "from the cache"]
    (engine,) = (tmp_path / "cache" / "tensorrt").glob("*.engine")
    engine.write_bytes(b"changed")
    with TensorRtBackend().open(artifact(tmp_path), "", threads=1, stage=lambda _: None) as session:
        assert session.facts["engine"] == "built"


@pytest.mark.gpu
def test_a_prebuilt_engine_is_opened_unless_it_has_changed(tmp_path: Path) -> None:
    backend, source, path = TensorRtBackend(), artifact(tmp_path), tmp_path / "model.engine"
    backend.build(source, path, next(iter(backend.devices())))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    prebuilt = replace(source, path=path, format="engine", sha256=digest)
    with backend.open(prebuilt, "", threads=1, stage=lambda _: None) as session:
        assert session.facts["engine"] == "prebuilt"
        assert session.run(np.zeros(SHAPE, np.float32)).shape == (1, 5)
    with pytest.raises(BackendError, match="has changed"):
        backend.open(replace(prebuilt, sha256="another"), "", threads=1, stage=lambda _: None)


@pytest.mark.gpu
def test_the_devices_times_add_up_to_at_most_the_hosts(tmp_path: Path) -> None:
    shape = (16, *SHAPE[1:])
    with TensorRtBackend().open(artifact(tmp_path, 16), "", threads=1, stage=lambda _: None) as session:
        images = np.zeros(shape, np.float32)
        calls_ms = []
        for _ in range(200):
            start = perf_counter()
            session.run(images)
            calls_ms.append((perf_counter() - start) * 1e3)
        assert isinstance(session, OnDevice)
        times = session.device_times(images, 50)
        device_ms = median(call.to_device_ms + call.compute_ms + call.to_host_ms for call in times)
        assert len(times) == 50
        assert 0.2 * median(calls_ms) < device_ms < 1.1 * median(calls_ms)


@pytest.mark.gpu
def test_the_driver_reports_the_processs_memory_or_a_reason(tmp_path: Path) -> None:
    with TensorRtBackend().open(artifact(tmp_path), "", threads=1, stage=lambda _: None) as session:
        assert isinstance(session, OnDevice)
        try:
            assert session.device_memory_bytes() > 1_000_000
        except BackendError as error:
            pytest.skip(str(error))


@pytest.mark.gpu
@pytest.mark.parametrize("dialect", ["fp32", "s8s8"])
def test_every_layer_is_identified_and_timed(dialect: Dialect) -> None:
    spec = ModelSpec(alpha=0.25, resolution=64, classes=10)
    layers = cost_of(spec).layers
    source = exported(spec, dialect).artifact(spec, 1, "int8" if dialect == "s8s8" else "fp32")
    with TensorRtBackend().open(source, "", threads=1, stage=lambda _: None) as session:
        assert isinstance(session, LayerAudit) and isinstance(session, LayerProfile)
        shares = audit(session.executed(), layers).shares
        assert "unknown" not in {share.precision for share in shares}, session.executed()
        times = session.profile(np.zeros((1, 3, 64, 64), np.float32), 10)
        assert len(attribute(times, 10, layers, 1).layers) == len(layers), times


@pytest.mark.gpu
def test_a_result_outlives_the_next_call(tmp_path: Path) -> None:
    with TensorRtBackend().open(artifact(tmp_path), "", threads=1, stage=lambda _: None) as session:
        first = session.run(np.zeros(SHAPE, np.float32))
        copy = first.copy()
        session.run(np.ones(SHAPE, np.float32))
        np.testing.assert_array_equal(first, copy)


@pytest.mark.gpu
def test_a_batch_above_the_engines_maximum_is_refused(tmp_path: Path) -> None:
    with (
        TensorRtBackend().open(artifact(tmp_path), "", threads=1, stage=lambda _: None) as session,
        pytest.raises(BackendError, match="batch 65 is larger than the engine's maximum of 64"),
    ):
        session.run(np.zeros((65, *SHAPE[1:]), np.float32))


@pytest.mark.gpu
class TestTensorRt(BackendContract):
    """Skipped, with the reason, on a machine without a GPU."""

    name = "tensorrt"
