import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from mbbench.analysis.executed import audit
from mbbench.backend import Artifact, Executed, LayerAudit, Session
from mbbench.compress import calibrate, quantize
from mbbench.errors import BackendError
from mbbench.graphs.fx import to_module
from mbbench.graphs.onnx import to_onnx
from mbbench.models import build, fold_batch_norm, randomize
from mbbench.models.cost import cost_of
from mbbench.spec import ModelSpec
from mbbench.testing import BackendContract

pytest.importorskip("mbbench_executorch", reason="mbbench-executorch is not installed: run `make mobile`")
from mbbench_executorch import ExecuTorchBackend, _calls, _name_nodes
from mbbench_executorch_convert import _adapt

SPEC = ModelSpec(alpha=0.25, resolution=64, classes=1000, padding="keras")
KEPT = ("blocks.0.0.conv", "blocks.0.1.conv")


class TestExecuTorch(BackendContract):
    name = "executorch"


@dataclass(frozen=True)
class Converted:
    graph: onnx.ModelProto  # with Q/DQ pairs
    artifact: Artifact  # the converted program
    output: str  # of the conversion


def images(count: int, resolution: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).uniform(-1, 1, (count, 3, resolution, resolution)).astype(np.float32)


def quantized(spec: ModelSpec, keep: tuple[str, ...] = ()) -> onnx.ModelProto:
    """Return the Q/DQ graph of a random network with nonzero biases."""
    module = build(spec)
    randomize(module, seed=0)
    folded, generator = fold_batch_norm(module), torch.Generator().manual_seed(0)
    for name, parameter in folded.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.uniform_(parameter, -0.1, 0.1, generator=generator)
    plain = to_onnx(folded, spec.resolution)
    ranges = calibrate.ranges(calibrate.statistics(plain, images(8, spec.resolution)), "minmax")
    fp32_nodes = [node.name for node in plain.graph.node if node.name.replace(".act", ".conv") in keep]
    return quantize.write(plain, ranges, "u8s8", keep_fp32=fp32_nodes)


def logits_of(module: torch.nn.Module, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.inference_mode():
        logits: NDArray[np.float32] = module(torch.from_numpy(inputs)).numpy()
    return logits


PREPARE = f"""
import sys
from pathlib import Path
from mbbench.backend import Artifact
from mbbench.spec import ModelSpec
from mbbench_executorch import ExecuTorchBackend
def artifact(name):
    return Artifact(Path(name), "onnx", "int8", "u8s8", {SPEC!r}, 1, "")
"""
CONVERT = PREPARE + "ExecuTorchBackend().convert(artifact('model.onnx'), Path('model.pte'))"
MEASURE = (
    PREPARE
    + """
import numpy as np
with ExecuTorchBackend().open(artifact("model.pte"), "", threads=1, stage=lambda _: None) as session:
    session.run(np.zeros((1, 3, 64, 64), np.float32))
print(*(name for name in ("executorch.exir", "executorch.backends", "torchao", "onnx") if name in sys.modules))
"""
)


def output_of(code: str, folder: Path) -> str:
    """Return what a new process prints and logs."""
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return (done.stdout + done.stderr).strip()


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Converted:
    """Return a converted network with Keras's padding, in INT8 except for two layers."""
    pytest.importorskip("executorch", reason="ExecuTorch is not installed")
    folder = tmp_path_factory.mktemp("executorch")
    graph = quantized(SPEC, KEPT)
    onnx.save(graph, folder / "model.onnx")
    output = output_of(CONVERT, folder)
    return Converted(graph, Artifact(folder / "model.pte", "pte", "int8", "u8s8", SPEC, 1, ""), output)


@pytest.fixture(scope="module")
def session(converted: Converted) -> Iterator[Session]:
    with open_session(converted.artifact) as opened:
        yield opened


def inverted(whole: bytes) -> bytes:
    """Return `whole` with 200 bytes inverted in the middle of its tables."""
    return whole[:1900] + bytes(255 - byte for byte in whole[1900:2100]) + whole[2100:]


def open_session(artifact: Artifact) -> Session:
    return ExecuTorchBackend().open(artifact, "cpu", threads=1, stage=lambda _: None)


def test_converting_prints_nothing(converted: Converted) -> None:
    assert converted.output == ""


def test_the_measuring_process_loads_no_converter_and_prints_nothing(converted: Converted) -> None:
    assert output_of(MEASURE, converted.artifact.path.parent) == ""


def test_the_program_holds_the_graphs_integers_and_scales(converted: Converted) -> None:
    """Compare a pointwise convolution and the classifier, whose weights XNNPACK keeps in the graph's order."""
    content = converted.artifact.path.read_bytes()
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in converted.graph.graph.initializer}
    for name in ("blocks.5.1.conv.weight", "classifier.weight"):
        weight = arrays[f"{name}_quantized"]
        assert weight.dtype == np.int8
        assert weight.tobytes() in content
        assert arrays[f"{name}_scale"].tobytes() in content
    assert len(content) < 1.15 * sum(array.nbytes for array in arrays.values())


def test_logits_are_close_to_the_graphs_and_are_not_8_bit(converted: Converted, session: Session) -> None:
    inputs = images(8, 64)
    expected = calibrate.logits(converted.graph, inputs)
    logits = session.run(inputs)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=0.03 * np.abs(expected).max())
    assert all(len(np.unique(row)) > 256 for row in logits)


def test_a_batch_is_split_into_the_programs_batch_sizes(session: Session) -> None:
    inputs = images(18, 64)
    single = np.concatenate([session.run(inputs[index : index + 1]) for index in range(18)])
    np.testing.assert_allclose(session.run(inputs), single, rtol=0, atol=1e-5)


def test_all_layers_except_the_kept_ones_run_in_int8_and_so_does_padding(session: Session) -> None:
    assert isinstance(session, LayerAudit)
    nodes = session.executed()
    info = audit(nodes, cost_of(SPEC).layers)
    assert info.fp32_layers == KEPT
    assert {share.precision: share.layers for share in info.shares} == {"int8": 26, "fp32": 2}
    assert not any("Pad" in node.type and "X8" not in node.type for node in nodes)


@pytest.mark.parametrize(
    "content", [b"", b"\0\0\0\0\xff\xfe\xfd\xfc" * 20, bytes(1000)], ids=["empty", "binary", "zeros"]
)
def test_a_file_that_is_not_a_program_is_refused(converted: Converted, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.pte"
    path.write_bytes(content)
    with pytest.raises(BackendError, match="convert the model again"):
        open_session(replace(converted.artifact, path=path))


@pytest.mark.parametrize("damage", [lambda whole: whole[:-1000], lambda whole: whole[:300] + whole[400:], inverted])
def test_a_damaged_program_is_refused(converted: Converted, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "model.pte"
    path.write_bytes(damage(converted.artifact.path.read_bytes()))
    with pytest.raises(BackendError, match="convert the model again"):
        open_session(replace(converted.artifact, path=path))


def test_an_unsupported_operator_is_named(tmp_path: Path) -> None:
    pytest.importorskip("executorch", reason="ExecuTorch is not installed")
    node = onnx.helper.make_node("Einsum", ["images"], ["logits"], name="last")
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 4]) for name in ("images", "logits")
    ]
    path = tmp_path / "model.onnx"
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([node], "g", values[:1], values[1:])), path)
    with pytest.raises(BackendError, match=r"operator Einsum \(last\) is not supported"):
        ExecuTorchBackend().convert(Artifact(path, "onnx", "fp32", "fp32", SPEC, 1, ""), tmp_path / "model.pte")


def test_concatenated_tensors_get_the_scale_of_the_result_and_keep_their_values() -> None:
    spec = ModelSpec("googlenet", resolution=64, classes=10)
    module = to_module(quantized(spec))
    inputs = images(2, 64)
    expected = logits_of(module, inputs)
    _adapt(module)
    concatenations = [node for node in module.graph.nodes if node.target is torch.cat]
    quantize = torch.ops.quantized_decomposed.quantize_per_tensor.default
    pairs = [(node, user) for node in concatenations for user in node.users if user.target is quantize]
    assert len(pairs) == 6  # the others are pooled before they are quantized
    for node, user in pairs:
        assert {part.args[1:] for part in node.args[0]} == {user.args[1:]}
    np.testing.assert_allclose(logits_of(module, inputs), expected, rtol=0, atol=0.01 * np.abs(expected).max())


def test_an_fp32_graph_is_not_changed() -> None:
    spec = ModelSpec(alpha=0.25, resolution=32, classes=10, padding="keras")
    module = to_module(to_onnx(fold_batch_norm(build(spec)), 32))
    before = str(module.graph)
    _adapt(module)
    assert str(module.graph) == before


LAYERS = cost_of(ModelSpec(alpha=0.25, resolution=32, classes=10)).layers[:3]
OPERATORS = (
    "Convert (NC)",
    "Convolution (NHWC, QC8) IGEMM",
    "Convolution (NHWC, F32) DWConv",
    "Fully Connected (NC, QS8, QC8W) GEMM",
)


def test_nodes_get_the_layers_names_in_order() -> None:
    assert _name_nodes(OPERATORS, LAYERS) == (
        Executed((), "Convert (NC)", "unknown"),
        Executed(("stem.conv",), "Convolution (NHWC, QC8) IGEMM", "int8"),
        Executed(("blocks.0.0.conv",), "Convolution (NHWC, F32) DWConv", "fp32"),
        Executed(("blocks.0.1.conv",), "Fully Connected (NC, QS8, QC8W) GEMM", "int8"),
    )


@pytest.mark.parametrize("operators", [OPERATORS[::-1], OPERATORS[:-1], (*OPERATORS, OPERATORS[-1])])
def test_nodes_of_other_kinds_or_number_get_no_names(operators: tuple[str, ...]) -> None:
    assert not any(node.names for node in _name_nodes(operators, LAYERS))


def test_a_common_precision_applies_to_every_layer_in_any_order() -> None:
    nodes = _name_nodes((OPERATORS[3], OPERATORS[1], OPERATORS[1]), LAYERS)
    assert [share.precision for share in audit(nodes, LAYERS).shares] == ["int8"]


def event(start: int, end: int, *, delegate: str | None = None, name: str | None = None) -> Any:
    return SimpleNamespace(
        profile_event=SimpleNamespace(name=name, delegate_debug_id_str=delegate, start_time=start, end_time=end)
    )


def test_a_trace_gives_each_calls_operators_and_milliseconds() -> None:
    call = [
        event(1_000, 9_001_000, delegate="Convolution (NHWC, F32) IGEMM #1"),
        event(9_001_000, 9_003_000, name="native_call_view_copy.out"),
        event(0, 9_004_000, name="DELEGATE_CALL"),
        event(0, 9_004_000, name="Method::execute"),
    ]
    loading = SimpleNamespace(name="Default", events=[event(0, 5, name="Method::init")])
    trace = SimpleNamespace(run_data=[loading, SimpleNamespace(name="Execute", events=call)])
    assert _calls(trace) == [[("Convolution (NHWC, F32) IGEMM", 9.0005), ("native_call_view_copy.out", 0.0025)]]
