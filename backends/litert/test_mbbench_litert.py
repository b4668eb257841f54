import subprocess
import sys
from dataclasses import dataclass, replace
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
OPEN_TWICE = """
import os, sys
from pathlib import Path
import numpy  # starts threads
from mbbench.backend import Artifact
from mbbench.spec import ModelSpec
from mbbench_litert import LiteRtBackend
artifact = Artifact(Path(sys.argv[1]), "tflite", "int8", "u8s8", ModelSpec(), 1, "")
threads = [len(os.listdir("/proc/self/task"))]
sessions = []
for count in (1, 3):
    sessions.append(LiteRtBackend().open(artifact, "", threads=count, stage=lambda _: None))
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
    return quantize.write(graph, ranges, "u8s8", keep_fp32=keep)


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Converted:
    """Return a converted network with Keras's padding and two layers kept in fp32."""
    try:
        LiteRtBackend().tools()
    except BackendError as error:
        pytest.skip(f"the converter is not installed: {error}")
    module = build(SPEC)
    randomize(module, seed=0)
    folded = fold_batch_norm(module)
    for name, parameter in folded.named_parameters():
        if name.endswith(".bias"):  # zero in random networks
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
    producers = {tensors[operator["outputs"][0]]["name"]: operator for operator in interpreter._get_ops_details()}
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in converted.graph.graph.initializer}
    sources = {node.output[0]: node for node in converted.graph.graph.node if node.op_type == "DequantizeLinear"}
    compared = 0
    for node in converted.graph.graph.node:
        if node.op_type not in ("Conv", "Gemm") or node.input[1] not in sources:
            continue
        operator = producers[node.name]
        _, weights, *bias = operator["inputs"]
        integers, scale = (arrays[name] for name in sources[node.input[1]].input[:2])
        converted_weights = interpreter.get_tensor(weights)
        if node.op_type == "Conv":
            order = (3, 0, 1, 2) if operator["op_name"].startswith("DEPTH") else (0, 3, 1, 2)
            converted_weights = converted_weights.transpose(order)
        np.testing.assert_array_equal(converted_weights, integers)
        np.testing.assert_array_equal(tensors[weights]["quantization_parameters"]["scales"], scale)
        if node.op_type == "Conv":
            np.testing.assert_array_equal(interpreter.get_tensor(bias[0]), arrays[sources[node.input[2]].input[0]])
        compared += 1
    assert compared == 26


def test_every_constant_in_the_file_is_used(converted: Converted) -> None:
    """The float weights that the converter wrote for the classifier are removed."""
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model(converted.artifact.path)
    used = {tensor.buffer for tensor in model.subgraphs[0].tensors}
    used |= {metadata.buffer for metadata in model.metadata}
    assert [index for index, buffer in enumerate(model.buffers) if buffer.data is not None and index not in used] == []


def test_kept_layers_run_in_fp32_and_all_others_in_int8(converted: Converted) -> None:
    with LiteRtBackend().open(converted.artifact, "", threads=1, stage=lambda _: None) as session:
        assert isinstance(session, LayerAudit)
        assert session.facts["precision"] == "int8"
        assert session.facts["delegate"] == "XNNPACK"
        executed = session.executed()
    info = audit(executed, cost_of(SPEC).layers)
    assert {share.precision: share.layers for share in info.shares} == {"int8": 26, "fp32": 2}
    assert info.fp32_layers == ("blocks.1.1.conv", "blocks.2.0.conv")
    assert "PAD" not in {node.type for node in executed}


def test_logits_are_those_of_the_qdq_file_and_are_not_8_bit(converted: Converted) -> None:
    inputs = images(64)
    expected = calibrate.logits(converted.graph, inputs)
    with LiteRtBackend().open(converted.artifact, "", threads=1, stage=lambda _: None) as session:
        logits = session.run(inputs)
    assert np.abs(logits - expected).max() < 0.02 * np.abs(expected).max()
    assert len(np.unique(logits)) > 256


def test_opening_loads_only_the_runtime_and_starts_the_requested_threads(converted: Converted) -> None:
    command = [sys.executable, "-c", OPEN_TWICE, str(converted.artifact.path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("0 2\n", "")


@pytest.mark.parametrize("size", [0, 100, 0.5, 0.999])
def test_a_truncated_file_is_refused_in_one_line(converted: Converted, size: float, tmp_path: Path) -> None:
    content = converted.artifact.path.read_bytes()
    path = tmp_path / "short.tflite"
    path.write_bytes(content[: int(size * len(content)) if size < 1 else int(size)])
    artifact = Artifact(path, "tflite", "int8", "u8s8", SPEC, 1, "")
    with pytest.raises(BackendError, match="convert the model again") as caught:
        LiteRtBackend().open(artifact, "", threads=1, stage=lambda _: None)
    assert "\n" not in str(caught.value)


def test_an_unsupported_operator_is_refused_in_one_line_and_nothing_is_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mbbench_litert.installed_version", lambda name, remedy=None: "1")
    node = onnx.helper.make_node("Einsum", ["images"], ["logits"], name="last")
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 4]) for name in ("images", "logits")
    ]
    path = tmp_path / "model.onnx"
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([node], "g", values[:1], values[1:])), path)
    with pytest.raises(BackendError, match=r"operator Einsum \(last\) is not supported") as caught:
        LiteRtBackend().convert(Artifact(path, "onnx", "fp32", "fp32", SPEC, 1, ""), tmp_path / "model.tflite")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_missing_tool_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
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
    """A concatenation of two branches, one with ten times larger outputs, that is pooled before it is quantized."""

    def __init__(self) -> None:
        super().__init__()
        self.small, self.large = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)
        self.act = nn.ReLU()
        self.classifier = nn.Linear(8, 10)
        torch.manual_seed(0)
        for parameter in self.parameters():
            nn.init.normal_(parameter)
        self.large.weight.data *= 10

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        both = torch.cat([self.act(self.small(x)), self.act(self.large(x))], 1)
        return self.classifier(nn.functional.max_pool2d(both, 2).mean((2, 3)))  # type: ignore[no-any-return]


def test_a_concatenation_gets_the_largest_of_its_inputs_scales() -> None:
    graph = quantized(Branches().eval())
    network = to_module(graph)
    (both,) = (node for node in network.graph.nodes if node.target is torch.cat)
    small, large = (part.args[1] for part in both.args[0])
    assert small < large / 5
    _quantize_concatenations(network)
    (pair,) = both.users
    assert pair.target is torch.ops.quantized_decomposed.quantize_per_tensor.default
    assert pair.args[1] == large
    expected = calibrate.logits(graph, images(4))
    with torch.inference_mode():
        logits = network(torch.from_numpy(images(4))).numpy()
    np.testing.assert_allclose(logits, expected, rtol=0, atol=0.02 * np.abs(expected).max())


def test_weights_quantized_in_the_graph_are_the_same_int8_values() -> None:
    network = to_module(quantized(Branches().eval()))
    before = [buffer for buffer in network.buffers() if buffer.dtype == torch.int8]
    _quantize_weights(network)
    quantize_weights = torch.ops.quantized_decomposed.quantize_per_channel.default
    nodes = [node for node in network.graph.nodes if node.target is quantize_weights]
    assert len(nodes) == len(before) == 3
    for node, integers in zip(nodes, before, strict=True):
        tensors = (network.get_buffer(str(buffer.target)) for buffer in node.args[:3])
        assert torch.equal(quantize_weights(*tensors, *node.args[3:]), integers)


class Stretched(nn.Module):
    """A convolution whose output columns are mixed by a matrix product, as in VGG16's pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv2d(3, 4, 1), nn.ReLU()
        self.columns = nn.Parameter(torch.linspace(-1, 1, SPEC.resolution * 2).reshape(SPEC.resolution, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.flatten(self.act(self.conv(x)) @ self.columns, 1)


def test_a_matrix_product_keeps_float_weights() -> None:
    network = to_module(quantized(Stretched().eval()))
    (product,) = (node for node in network.graph.nodes if node.target is torch.matmul)
    dequantize = torch.ops.quantized_decomposed.dequantize_per_channel.default
    assert product.args[1].target is dequantize
    _quantize_weights(network)
    floats = network.get_buffer(str(product.args[1].target))
    torch.testing.assert_close(floats, Stretched().columns.detach(), rtol=0, atol=0.01)


class Gated(nn.Module):
    """A channel shuffle of halves, and a gate whose factor of 1/6 the converter moves into its layer's weights."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.gate = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = x * nn.functional.hardsigmoid(self.gate(x.mean((2, 3), keepdim=True)))
        left, right = x.chunk(2, 1)
        x = torch.stack([right, torch.relu(left)], 2).flatten(1, 2)
        return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]


@pytest.mark.usefixtures("converted")  # skips where there is no converter
def test_slices_and_gates_give_the_logits_of_every_image_of_a_batch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Gated().eval()
    onnx.save(to_onnx(module, SPEC.resolution), tmp_path / "model.onnx")
    source = Artifact(tmp_path / "model.onnx", "onnx", "fp32", "fp32", SPEC, 1, "")
    LiteRtBackend().convert(source, tmp_path / "model.tflite")
    made = replace(source, path=tmp_path / "model.tflite", format="tflite")
    with LiteRtBackend().open(made, "", threads=1, stage=lambda _: None) as session, torch.inference_mode():
        for count in (1, 3):
            expected = module(torch.from_numpy(images(count))).numpy()
            np.testing.assert_allclose(session.run(images(count)), expected, rtol=1e-4, atol=1e-4)
        assert isinstance(session, LayerAudit)
        assert {"stem", "gate", "head"} <= {name for node in session.executed() for name in node.names}


class FixedInterpreter:
    """A fake interpreter that accepts one image (1, 1, 1, 2) and returns it as the logits."""

    def __init__(self) -> None:
        self.requested_batches: list[int] = []
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
        self.requested_batches.append(shape[0])

    def allocate_tensors(self) -> None:
        if self._shape[0] > 1:
            raise RuntimeError("failed to prepare")

    def set_tensor(self, _: int, images: NDArray[np.float32]) -> None:
        assert images.shape == self._shape
        self._images = images.copy()

    def invoke(self) -> None:
        pass

    def get_tensor(self, _: int) -> NDArray[np.float32]:
        return self._images.reshape(-1, 2)


def test_a_file_for_one_image_runs_a_batch_one_by_one() -> None:
    interpreter = FixedInterpreter()
    session = _LiteRtSession(interpreter, batch=4)
    assert session.facts["batch"] == "1"
    inputs = np.arange(6, dtype=np.float32).reshape(3, 1, 1, 2)
    for _ in range(2):
        np.testing.assert_array_equal(session.run(inputs), inputs.reshape(3, 2))
    assert interpreter.requested_batches == [4, 1]
