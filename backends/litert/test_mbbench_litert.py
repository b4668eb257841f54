import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from mbbench.analysis.executed import audit
from mbbench.backend import Artifact, LayerAudit, Session, Stage
from mbbench.compress import calibrate, quantize
from mbbench.errors import BackendError
from mbbench.graphs.fx import to_module
from mbbench.graphs.onnx import to_onnx
from mbbench.models import build, fold_batch_norm, randomize
from mbbench.models.cost import cost_of
from mbbench.spec import ModelSpec
from mbbench.testing import BackendContract

pytest.importorskip("mbbench_litert", reason="mbbench-litert is not installed: run `make mobile`")
from mbbench_litert import LiteRtBackend, _LiteRtSession
from mbbench_litert_convert import _quantize_concatenations, _quantize_weights

SPEC = ModelSpec(alpha=0.25, resolution=32, classes=10, padding="keras")
KEPT = ("blocks.1.1.conv", "blocks.1.1.act", "blocks.2.0.conv", "blocks.2.0.act")  # the latter has stride 2
OPENED = """
import os, sys
from pathlib import Path
import numpy  # starts threads of its own
from mbbench.backend import Artifact
from mbbench.spec import ModelSpec
from mbbench_litert import LiteRtBackend
artifact = Artifact(Path(sys.argv[1]), "tflite", "int8", "u8s8", ModelSpec(), 1, "")
threads = [len(os.listdir("/proc/self/task"))]
sessions = []
for asked in (1, 3):
    sessions.append(LiteRtBackend().open(artifact, "", threads=asked, stage=lambda _: None))
    threads.append(len(os.listdir("/proc/self/task")))
assert not {"torch", "onnx", "jax", "litert_torch", "mbbench_litert_convert"} & set(sys.modules)
print(threads[1] - threads[0], threads[2] - threads[1])
"""


class TestLiteRt(BackendContract):
    name = "litert"

    def test_xnnpack_takes_the_whole_network(self, opened: tuple[Session, list[Stage]]) -> None:
        assert opened[0].facts == {"precision": "float32", "delegate": "XNNPACK", "batch": "1"}


@dataclass(frozen=True)
class Converted:
    graph: onnx.ModelProto
    artifact: Artifact


def images(count: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).uniform(-1, 1, (count, 3, SPEC.resolution, SPEC.resolution)).astype(np.float32)


def quantized(module: nn.Module, keep: tuple[str, ...] = ()) -> onnx.ModelProto:
    graph = to_onnx(module, SPEC.resolution)
    ranges = calibrate.ranges(calibrate.statistics(graph, images(8)), "minmax")
    return quantize.write(graph, ranges, "u8s8", keep=keep)


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Converted:
    """A network with Keras's padding, two layers of which are kept in fp32."""
    try:
        LiteRtBackend().tools()
    except BackendError as error:
        pytest.skip(f"nothing can be converted here: {error}")
    module = build(SPEC)
    randomize(module, seed=0)
    folded = fold_batch_norm(module)
    for name, parameter in folded.named_parameters():
        if name.endswith(".bias"):  # random weights leave none
            nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(len(parameter)))
    graph = quantized(folded, KEPT)
    folder = tmp_path_factory.mktemp("litert")
    onnx.save(graph, folder / "model.onnx")
    target = folder / "model.tflite"
    LiteRtBackend().convert(Artifact(folder / "model.onnx", "onnx", "int8", "u8s8", SPEC, 1, ""), target)
    return Converted(graph, Artifact(target, "tflite", "int8", "u8s8", SPEC, 1, ""))


def test_weights_scales_and_biases_are_those_of_the_qdq_file(converted: Converted) -> None:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(converted.artifact.path))
    tensors = {tensor["index"]: tensor for tensor in interpreter.get_tensor_details()}
    makers = {tensors[made["outputs"][0]]["name"]: made for made in interpreter._get_ops_details()}
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in converted.graph.graph.initializer}
    sources = {node.output[0]: node for node in converted.graph.graph.node if node.op_type == "DequantizeLinear"}
    seen = 0
    for node in converted.graph.graph.node:
        if node.op_type not in ("Conv", "Gemm") or node.input[1] not in sources:
            continue
        _, weights, *bias = makers[node.name]["inputs"]
        integers, scale = (arrays[name] for name in sources[node.input[1]].input[:2])
        found = interpreter.get_tensor(weights)
        if node.op_type == "Conv":
            found = found.transpose((3, 0, 1, 2) if makers[node.name]["op_name"].startswith("DEPTH") else (0, 3, 1, 2))
        np.testing.assert_array_equal(found, integers)
        np.testing.assert_array_equal(tensors[weights]["quantization_parameters"]["scales"], scale)
        if node.op_type == "Conv":
            np.testing.assert_array_equal(interpreter.get_tensor(bias[0]), arrays[sources[node.input[2]].input[0]])
        seen += 1
    assert seen == 26


def test_every_constant_in_the_file_is_used(converted: Converted) -> None:
    """The classifier's float weights, which the converter wrote, are gone."""
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model(converted.artifact.path)
    used = {tensor.buffer for tensor in model.subgraphs[0].tensors} | {own.buffer for own in model.metadata}
    assert [index for index, buffer in enumerate(model.buffers) if buffer.data is not None and index not in used] == []


def test_layers_that_were_kept_run_in_fp32_and_all_others_in_integers(converted: Converted) -> None:
    with LiteRtBackend().open(converted.artifact, "", threads=1, stage=lambda _: None) as session:
        assert isinstance(session, LayerAudit)
        assert session.facts["precision"] == "int8"
        assert session.facts["delegate"] == "XNNPACK"
        executed = session.executed()
    found = audit(executed, cost_of(SPEC).layers)
    assert {share.precision: share.layers for share in found.shares} == {"int8": 26, "fp32": 2}
    assert found.fp32_layers == ("blocks.1.1.conv", "blocks.2.0.conv")
    assert "PAD" not in {node.type for node in executed}


def test_logits_are_those_of_the_qdq_file_and_are_not_rounded(converted: Converted) -> None:
    given = images(64)
    expected = calibrate.logits(converted.graph, given)
    with LiteRtBackend().open(converted.artifact, "", threads=1, stage=lambda _: None) as session:
        logits = session.run(given)
    assert np.abs(logits - expected).max() < 0.02 * np.abs(expected).max()
    assert len(np.unique(logits)) > 256


def test_opening_loads_the_runtime_alone_and_starts_the_threads_asked_for(converted: Converted) -> None:
    command = [sys.executable, "-c", OPENED, str(converted.artifact.path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("0 2\n", "")


@pytest.mark.parametrize("kept", [0, 100, 0.5, 0.999])
def test_a_file_that_was_cut_short_is_refused_in_one_line(converted: Converted, kept: float, tmp_path: Path) -> None:
    content = converted.artifact.path.read_bytes()
    path = tmp_path / "short.tflite"
    path.write_bytes(content[: int(kept * len(content)) if kept < 1 else int(kept)])
    artifact = Artifact(path, "tflite", "int8", "u8s8", SPEC, 1, "")
    with pytest.raises(BackendError, match="convert the model again") as caught:
        LiteRtBackend().open(artifact, "", threads=1, stage=lambda _: None)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_converted_is_refused_in_one_line_and_nothing_is_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mbbench_litert._version", lambda name, wanted: "1")
    node = onnx.helper.make_node("Softmax", ["images"], ["logits"], name="last")
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 4]) for name in ("images", "logits")
    ]
    path = tmp_path / "model.onnx"
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([node], "g", values[:1], values[1:])), path)
    with pytest.raises(BackendError, match=r"operator Softmax \(last\) is unknown") as caught:
        LiteRtBackend().convert(Artifact(path, "onnx", "fp32", "fp32", SPEC, 1, ""), tmp_path / "model.tflite")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_tool_that_is_missing_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    def version(name: str) -> str:
        if name == "litert-converter":
            raise metadata.PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr("importlib.metadata.version", version)
    assert LiteRtBackend().versions() == {"ai-edge-litert": "1"}
    with pytest.raises(BackendError, match="litert-converter is not installed; run `pip install litert-torch`"):
        LiteRtBackend().tools()


class Branches(nn.Module):
    """Two branches, one with outputs ten times as large, as one tensor that is pooled before it is quantized."""

    def __init__(self) -> None:
        super().__init__()
        self.small, self.large = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)
        self.act = nn.ReLU()
        self.classifier = nn.Linear(8, 10)
        torch.manual_seed(0)
        for own in self.parameters():
            nn.init.normal_(own)
        self.large.weight.data *= 10

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        both = torch.cat([self.act(self.small(given)), self.act(self.large(given))], 1)
        return self.classifier(nn.functional.max_pool2d(both, 2).mean((2, 3)))  # type: ignore[no-any-return]


def test_a_concatenation_takes_the_widest_of_its_inputs_scales() -> None:
    graph = quantized(Branches().eval())
    network = to_module(graph)
    (both,) = (node for node in network.graph.nodes if node.target is torch.cat)
    small, large = (given.args[1] for given in both.args[0])
    assert small < large / 5
    _quantize_concatenations(network)
    (pair,) = both.users
    assert pair.target is torch.ops.quantized_decomposed.quantize_per_tensor.default
    assert pair.args[1] == large
    expected = calibrate.logits(graph, images(4))
    with torch.inference_mode():
        logits = network(torch.from_numpy(images(4))).numpy()
    np.testing.assert_allclose(logits, expected, rtol=0, atol=0.02 * np.abs(expected).max())


def test_weights_quantized_in_the_graph_are_the_same_integers() -> None:
    network = to_module(quantized(Branches().eval()))
    before = [buffer for buffer in network.buffers() if buffer.dtype == torch.int8]
    _quantize_weights(network)
    again = torch.ops.quantized_decomposed.quantize_per_channel.default
    nodes = [node for node in network.graph.nodes if node.target is again]
    assert len(nodes) == len(before) == 3
    for node, integers in zip(nodes, before, strict=True):
        tensors = (network.get_buffer(str(own.target)) for own in node.args[:3])
        assert torch.equal(again(*tensors, *node.args[3:]), integers)


class Stretched(nn.Module):
    """A convolution whose columns are mixed by a product of matrices, as VGG16's pooling does it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv2d(3, 4, 1), nn.ReLU()
        self.columns = nn.Parameter(torch.linspace(-1, 1, SPEC.resolution * 2).reshape(SPEC.resolution, 2))

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        return torch.flatten(self.act(self.conv(given)) @ self.columns, 1)


def test_a_product_of_matrices_keeps_its_weights_in_floats() -> None:
    network = to_module(quantized(Stretched().eval()))
    (product,) = (node for node in network.graph.nodes if node.target is torch.matmul)
    dequantize = torch.ops.quantized_decomposed.dequantize_per_channel.default
    assert product.args[1].target is dequantize
    _quantize_weights(network)
    floats = network.get_buffer(str(product.args[1].target))
    torch.testing.assert_close(floats, Stretched().columns.detach(), rtol=0, atol=0.01)


class FixedInterpreter:
    """Takes one image (1, 1, 1, 2) at a time, and gives it back as its logits."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self._shape: tuple[int, ...] = (1, 1, 1, 2)
        self._images = np.zeros(self._shape, np.float32)

    def get_input_details(self) -> list[dict[str, Any]]:
        return [{"index": 0, "shape": np.array(self._shape)}]

    def get_output_details(self) -> list[dict[str, Any]]:
        return [{"index": 1}]

    def _get_ops_details(self) -> list[dict[str, Any]]:
        return []

    def resize_tensor_input(self, _: int, shape: tuple[int, ...]) -> None:
        self._shape = shape
        self.asked.append(shape[0])

    def allocate_tensors(self) -> None:
        if self._shape[0] > 1:
            raise RuntimeError("failed to prepare")

    def set_tensor(self, _: int, given: NDArray[np.float32]) -> None:
        assert given.shape == self._shape
        self._images = given.copy()

    def invoke(self) -> None:
        pass

    def get_tensor(self, _: int) -> NDArray[np.float32]:
        return self._images.reshape(-1, 2)


def test_a_file_for_one_image_takes_others_one_after_the_other() -> None:
    interpreter = FixedInterpreter()
    session = _LiteRtSession(interpreter, batch=4)
    assert session.facts["batch"] == "1"
    given = np.arange(6, dtype=np.float32).reshape(3, 1, 1, 2)
    for _ in range(2):
        np.testing.assert_array_equal(session.run(given), given.reshape(3, 2))
    assert interpreter.asked == [4, 1]
