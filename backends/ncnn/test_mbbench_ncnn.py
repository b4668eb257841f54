import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from mbbench_ncnn import NcnnBackend
from mbbench_ncnn_writer import write
from numpy.typing import NDArray
from torch import nn

from mbbench.analysis.executed import audit
from mbbench.backend import Artifact, LayerAudit, Session, Stage
from mbbench.compress import calibrate, quantize
from mbbench.errors import BackendError
from mbbench.graphs.onnx import to_onnx
from mbbench.models import build, fold_batch_norm, randomize
from mbbench.models.cost import cost_of
from mbbench.models.modules.vgg16 import AdaptiveAveragePool
from mbbench.spec import ModelSpec
from mbbench.testing import BackendContract

SPEC = ModelSpec(alpha=0.25, resolution=64, classes=10, padding="keras")
FULL_CONV = replace(SPEC, variant="full-conv", padding="symmetric")
GOOGLENET = ModelSpec(family="googlenet", resolution=64, classes=10)


class TestNcnn(BackendContract):
    name = "ncnn"

    def test_nothing_is_narrower_than_fp32(self, opened: tuple[Session, list[Stage]]) -> None:
        assert opened[0].facts == {"precision": "float32", "threads": "1"}


def test_int8_leaves_layers_in_fp32_that_ncnn_runs_slowly_in_int8() -> None:
    assert NcnnBackend().native("cpu") == {"fp32": "fp32", "int8": "s8s8f"}


def images_of(resolution: int, count: int = 4) -> NDArray[np.float32]:
    images = np.random.default_rng(1).uniform(-1, 1, (count, 3, resolution, resolution))
    return images.astype(np.float32)


def graph_of(spec: ModelSpec) -> onnx.ModelProto:
    """Return the fp32 graph of a random network with nonzero biases."""
    module = build(spec)
    randomize(module, seed=0)
    folded = fold_batch_norm(module)
    generator = torch.Generator().manual_seed(0)
    for layer in folded.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
            layer.bias.data.uniform_(-0.1, 0.1, generator=generator)
    return to_onnx(folded, spec.resolution)


def quantized(graph: onnx.ModelProto, spec: ModelSpec, keep: Sequence[str] = ()) -> onnx.ModelProto:
    pytest.importorskip("onnxruntime")
    ranges = calibrate.ranges(calibrate.statistics(graph, images_of(spec.resolution)), "minmax")
    return quantize.write(graph, ranges, "s8s8f", keep_fp32=keep)


@pytest.fixture(scope="module")
def graph() -> onnx.ModelProto:
    return graph_of(SPEC)


@pytest.fixture(scope="module")
def integers(graph: onnx.ModelProto) -> onnx.ModelProto:
    return quantized(graph, SPEC)


def converted(graph: onnx.ModelProto, folder: Path, spec: ModelSpec = SPEC) -> Artifact:
    source = Artifact(folder / "source.onnx", "onnx", "fp32", "fp32", spec, 1, "")
    onnx.save(graph, source.path)
    target = replace(source, path=folder / "converted.ncnn", format="ncnn")
    target.path.unlink(missing_ok=True)
    NcnnBackend().convert(source, target.path)
    return target


@contextmanager
def opened(artifact: Artifact) -> Iterator[Session]:
    pytest.importorskip("ncnn")
    with NcnnBackend().open(artifact, "cpu", threads=1, stage=lambda _: None) as session:
        yield session


def logits_of(graph: onnx.ModelProto, folder: Path, spec: ModelSpec = SPEC) -> NDArray[np.float32]:
    with opened(converted(graph, folder, spec)) as session:
        return session.run(images_of(spec.resolution))


def assert_close(actual: NDArray[np.float32], expected: NDArray[np.float32], share: float) -> None:
    """Compare arrays with a tolerance of `share` of the largest expected value."""
    np.testing.assert_allclose(actual, expected, rtol=0, atol=share * np.abs(expected).max())


def arrays(graph: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}


def layers_of(param: str) -> Mapping[str, str]:
    """Return the lines of a .param by layer name."""
    return {line.split()[1]: line for line in param.splitlines()[2:]}


def tensors_of(graph: onnx.ModelProto, names: Sequence[str], images: NDArray[np.float32]) -> list[NDArray[Any]]:
    """Return int8 tensors of the Q/DQ graph as ONNX Runtime computes them."""
    extended = onnx.ModelProto()
    extended.CopyFrom(graph)
    for name in names:
        extended.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT8, None))
    tensors: list[NDArray[Any]] = calibrate.session(extended).run(names, {"images": images})
    return tensors


def test_padding_at_the_right_and_bottom_gives_the_graphs_logits(graph: onnx.ModelProto, tmp_path: Path) -> None:
    assert_close(logits_of(graph, tmp_path), calibrate.logits(graph, images_of(64)), 1e-5)


def test_branches_and_ceil_mode_pooling_give_the_graphs_logits(tmp_path: Path) -> None:
    graph = graph_of(GOOGLENET)
    expected = calibrate.logits(graph, images_of(64))
    assert_close(logits_of(graph, tmp_path, GOOGLENET), expected, 1e-5)
    integers = quantized(graph, GOOGLENET)
    with opened(converted(integers, tmp_path, GOOGLENET)) as session:
        assert_close(session.run(images_of(64)), calibrate.logits(integers, images_of(64)), 5e-2)
        assert isinstance(session, LayerAudit)
        assert audit(session.executed(), cost_of(GOOGLENET).layers).fp32_layers == ("conv1.conv",)


def check_in_fp32_and_int8(module: nn.Module, folder: Path) -> None:
    """Check a network's logits in fp32 against PyTorch's, and in INT8 against those of its Q/DQ graph."""
    graph, spec = to_onnx(module, 32), replace(SPEC, resolution=32)
    with torch.inference_mode():
        assert_close(logits_of(graph, folder, spec), module(torch.from_numpy(images_of(32))).numpy(), 1e-5)
    integers = quantized(graph, spec)
    assert_close(logits_of(integers, folder, spec), calibrate.logits(integers, images_of(32)), 5e-2)


def test_vgg16s_operators_give_the_graphs_logits(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        *(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), AdaptiveAveragePool(7), nn.Flatten()),
        *(nn.Linear(16 * 49, 33), nn.ReLU(), nn.Linear(33, 10)),
    ).eval()
    check_in_fp32_and_int8(module, tmp_path)


class Mobile(nn.Module):
    """Squeeze-and-excite, hard swish, SiLU, a residual sum, a concatenation, average pooling and a dilation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.squeeze, self.excite = nn.Conv2d(16, 8, 1), nn.Conv2d(8, 16, 1, bias=False)
        self.narrow = nn.Conv2d(16, 16, 3, padding=2, dilation=2)
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.hardswish(self.stem(x))
        gate = nn.functional.hardsigmoid(self.excite(torch.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        y = torch.relu(x * gate + nn.functional.silu(self.narrow(x)))
        y = torch.cat([y / 2, nn.functional.avg_pool2d(y, 3, stride=1, padding=1)], 1)
        return self.head(nn.functional.adaptive_avg_pool2d(y, 1).flatten(1))  # type: ignore[no-any-return]


def test_operators_of_mobile_networks_give_the_graphs_logits(tmp_path: Path) -> None:
    torch.manual_seed(0)
    check_in_fp32_and_int8(Mobile().eval(), tmp_path)


class Elementwise(nn.Module):
    """Constants on either side, a value for each channel, the images themselves, and bounds on one side."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3, 2, 1), nn.Linear(8, 10)
        self.scale = nn.Parameter(torch.linspace(0.5, 2, 8).reshape(8, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem((0.5 - x / 3) * 2)
        y = torch.clamp(x * self.scale, min=-0.2)
        y = (3 - torch.relu(x)) / (2 + torch.relu(x)) - torch.clamp(y + x, max=0.3)
        return self.head(torch.clamp(y, min=-0.4).mean((2, 3)))  # type: ignore[no-any-return]


def test_constants_and_bounds_give_the_graphs_logits(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Elementwise().eval()
    with torch.inference_mode():
        expected = module(torch.from_numpy(images_of(32))).numpy()
    assert_close(logits_of(to_onnx(module, 32), tmp_path, replace(SPEC, resolution=32)), expected, 1e-5)


class Refused(nn.Module):
    def __init__(self, part: str) -> None:
        super().__init__()
        self.stem, self.part = nn.Conv2d(3, 8, 3, 2, 1), part
        self.grouped, self.head = nn.Conv2d(8, 8, 1, groups=2), nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.part == "of the images":
            x = torch.relu(x)
        x = self.stem(x)
        if self.part == "dilation":
            x = nn.functional.max_pool2d(x, 2, dilation=2)
        if self.part == "pooled pixels":
            x = self.grouped(x.mean((2, 3), keepdim=True))
        if self.part == "ceil_mode and count_include_pad":
            x = nn.functional.avg_pool2d(x, 3, 2, 1, ceil_mode=True)
        return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]


@pytest.mark.parametrize("part", ["of the images", "dilation", "pooled pixels", "ceil_mode and count_include_pad"])
def test_what_ncnn_would_compute_wrongly_is_refused(tmp_path: Path, part: str) -> None:
    with pytest.raises(BackendError, match=rf"{part}.* is not supported"):
        converted(to_onnx(Refused(part).eval(), 32), tmp_path, replace(SPEC, resolution=32))


def test_a_quantized_convolution_that_floats_read_too_is_computed_once(tmp_path: Path) -> None:
    spec = ModelSpec("mobilenet_v2", alpha=0.35, resolution=32, classes=10)
    param, _ = write(quantized(graph_of(spec), spec))
    names = [line.split()[1] for line in param.splitlines()[2:]]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("family", ["mobilenet_v2", "squeezenet1_1", "xception"])
def test_other_families_give_their_graphs_logits(tmp_path: Path, family: str) -> None:
    spec = ModelSpec(family, resolution=64, classes=10)
    graph = graph_of(spec)
    assert_close(logits_of(graph, tmp_path, spec), calibrate.logits(graph, images_of(64)), 1e-5)


def test_int8_weights_and_scales_are_those_of_the_graph(integers: onnx.ModelProto) -> None:
    param, weights = write(integers)
    layers, tensors = layers_of(param), arrays(integers)
    for block in range(13):
        name = f"blocks.{block}.1.conv"
        weight, bias = tensors[f"{name}.weight_quantized"], tensors[f"{name}.bias"]
        assert weight.dtype == np.int8
        input_scale = tensors[f"blocks.{block}.0.act_scale"]
        scales = np.concatenate([1 / tensors[f"{name}.weight_scale"], [1 / input_scale]]).astype(np.float32)
        expected = weight.tobytes() + bias.tobytes() + scales.tobytes()
        assert expected in weights
        assert " 8=1" in layers[name] and " 31=64" in layers[name]
        assert " 8=" not in layers[f"blocks.{block}.0.conv"]
    assert tensors["classifier.weight_quantized"].tobytes() in weights
    assert " 8=" not in layers["stem.conv"]


def test_logits_are_close_to_the_qdq_graphs(integers: onnx.ModelProto, tmp_path: Path) -> None:
    logits = logits_of(integers, tmp_path)
    assert_close(logits, calibrate.logits(integers, images_of(64)), 5e-2)
    assert len(np.unique(logits)) == logits.size  # 8-bit logits would have ties


def test_tensors_between_integer_layers_stay_int8_and_equal_the_graphs(tmp_path: Path) -> None:
    ncnn = pytest.importorskip("ncnn")
    graph = quantized(graph_of(FULL_CONV), FULL_CONV)
    param, weights = write(graph)
    assert " 8=101" in layers_of(param)["blocks.0.conv"]
    path = tmp_path / "weights.bin"
    path.write_bytes(weights)
    net = ncnn.Net()
    assert not net.load_param_mem(param) and not net.load_model(str(path))
    names = [f"blocks.{block}.act_QuantizeLinear_Output" for block in range(4)]
    image = images_of(64, 1)
    for name, expected in zip(names, tensors_of(graph, names, image), strict=True):
        extractor, stored, values = net.create_extractor(), ncnn.Mat(), ncnn.Mat()
        extractor.input("images", ncnn.Mat(image[0]))
        assert not extractor.extract(name, values) and not extractor.extract(name, stored, 1)
        assert stored.elembits() == 8
        assert np.mean(np.array(values) != expected[0]) < 1e-3, name  # halves are rounded differently


def test_kept_layers_run_in_fp32(graph: onnx.ModelProto, tmp_path: Path) -> None:
    partly = quantized(graph, SPEC, ("blocks.3.1.conv", "blocks.3.1.act", "classifier"))
    artifact = converted(partly, tmp_path)
    with opened(artifact) as session:
        assert_close(session.run(images_of(64)), calibrate.logits(partly, images_of(64)), 5e-2)
        assert isinstance(session, LayerAudit)
        info = audit(session.executed(), cost_of(SPEC).layers)
    depthwise = [f"blocks.{block}.0.conv" for block in range(13)]
    assert sorted(info.fp32_layers) == sorted(["stem.conv", "blocks.3.1.conv", "classifier", *depthwise])
    assert {share.precision: share.layers for share in info.shares} == {"int8": 12, "fp32": 16}


def test_an_int8_file_is_about_a_quarter_of_the_fp32_file(
    graph: onnx.ModelProto, integers: onnx.ModelProto, tmp_path: Path
) -> None:
    sizes = [converted(model, tmp_path).path.stat().st_size for model in (graph, integers)]
    assert 0.25 < sizes[1] / sizes[0] < 0.32  # the stem and the depthwise weights stay fp32


def test_the_file_does_not_depend_on_the_date_and_nothing_is_printed(
    integers: onnx.ModelProto, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    today = converted(integers, tmp_path).path.read_bytes()
    monkeypatch.setattr("time.time", lambda: 1e9)
    assert converted(integers, tmp_path).path.read_bytes() == today
    assert capfd.readouterr() == ("", "")


def test_an_unsupported_operator_is_named(graph: onnx.ModelProto, tmp_path: Path) -> None:
    unsupported = onnx.ModelProto()
    unsupported.CopyFrom(graph)
    next(node for node in unsupported.graph.node if node.op_type == "ReduceMean").op_type = "ReduceMax"
    with pytest.raises(BackendError, match=r"operator ReduceMax \(pool\) is not supported"):
        converted(unsupported, tmp_path)


def test_a_damaged_file_is_refused_and_nothing_is_printed(
    integers: onnx.ModelProto, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    artifact = converted(integers, tmp_path)
    content = artifact.path.read_bytes()
    with zipfile.ZipFile(artifact.path) as archive:
        offset, param = archive.getinfo("model.param").header_offset, archive.read("model.param")
    changed_network = bytearray(content)
    changed_network[offset + 100] ^= 1
    for damaged in (content[:-1], content[1000:], content[:1000], bytes(changed_network), content[:1000]):
        artifact.path.write_bytes(damaged)
        with pytest.raises(BackendError, match="is not a valid ncnn file"), opened(artifact):
            pass
    with zipfile.ZipFile(artifact.path, "a") as archive:  # after truncated weights
        archive.writestr("model.param", param)
        archive.comment = b"1000"
    with pytest.raises(BackendError, match="ncnn cannot load"), opened(artifact):
        pass
    assert capfd.readouterr() == ("", "")


def test_the_measuring_process_imports_no_converter(graph: onnx.ModelProto, tmp_path: Path) -> None:
    pytest.importorskip("ncnn")
    path = converted(graph, tmp_path).path
    code = f"""
import sys
from pathlib import Path
import numpy as np
from mbbench_ncnn import NcnnBackend
from mbbench.backend import Artifact
from mbbench.spec import ModelSpec
artifact = Artifact(Path({str(path)!r}), "ncnn", "fp32", "fp32", ModelSpec(resolution=64), 1, "")
with NcnnBackend().open(artifact, "", threads=1, stage=lambda _: None) as session:
    assert session.run(np.zeros((2, 3, 64, 64), np.float32)).shape == (2, 10)
    session.executed()
assert not {{"onnx", "torch", "mbbench_ncnn_writer"}} & sys.modules.keys()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
