from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from mbbench.artifacts.export import convert, export
from mbbench.backend import Artifact, Converter, Format
from mbbench.compress import calibrate
from mbbench.errors import BackendError, RequirementError
from mbbench.graphs.onnx import to_onnx, with_parameters
from mbbench.models import build, fold_batch_norm, randomize
from mbbench.spec import ModelSpec
from mbbench.testing import FakeBackend

SPEC = ModelSpec(alpha=0.25, resolution=32, classes=10)


def module(spec: ModelSpec = SPEC) -> nn.Module:
    built = build(spec)
    randomize(built, seed=0)
    return built


def test_an_onnx_file_has_the_names_and_shapes_of_the_contract_and_no_batch_norm() -> None:
    model = onnx.load(export(SPEC, "contract", "onnx", module).path)
    onnx.checker.check_model(model, full_check=True)
    (image,), (logits,) = model.graph.input, model.graph.output
    assert (image.name, logits.name) == ("images", "logits")
    dimensions = image.type.tensor_type.shape.dim
    assert dimensions[0].dim_param
    assert [dimension.dim_value for dimension in dimensions[1:]] == [3, 32, 32]
    assert {node.op_type for node in model.graph.node} <= {"Conv", "Clip", "ReduceMean", "GlobalAveragePool", "Flatten",
                                                           "Reshape", "Gemm"}  # fmt: skip


@pytest.mark.parametrize("family", ["mobilenet_v1", pytest.param("vgg16", marks=pytest.mark.slow), "googlenet"])
def test_every_family_exports_and_runs_at_any_batch(family: str) -> None:
    spec = ModelSpec(family=family, alpha=0.25 if family == "mobilenet_v1" else 1.0, resolution=64, classes=10)
    exported = export(spec, "any batch", "onnx", lambda: module(spec))
    images = np.random.default_rng(0).uniform(-1, 1, (3, 3, 64, 64)).astype(np.float32)
    logits = calibrate.logits(onnx.load(exported.path), images)
    with torch.inference_mode():
        expected = module(spec)(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    assert exported.info.max_abs_error < 1e-4 * np.abs(expected).max()


class OldNetwork(nn.Module):
    """Local response normalization and dilated pooling, for which ONNX's reference implementation needs help."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 16, 3, 2), nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.local_response_norm(self.stem(x), 5, alpha=5.0)
        x = nn.functional.max_pool2d(x, 3, 2, 1, dilation=2)
        return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]


def test_the_check_computes_response_normalization_and_dilated_pooling() -> None:
    torch.manual_seed(0)
    network = OldNetwork().eval()
    assert export(SPEC, "old", "onnx", lambda: network).info.max_abs_error < 1e-5  # type: ignore[operator]


@pytest.mark.parametrize("format", ["onnx"])
def test_a_second_export_builds_nothing(format: Format) -> None:
    first = export(SPEC, "twice", format, module)

    def fail() -> nn.Module:
        raise AssertionError("built again")

    assert export(SPEC, "twice", format, fail) == first
    assert first.info.size_bytes == first.path.stat().st_size
    assert first.path.suffix == f".{format}"


def test_other_weights_are_exported_to_another_file() -> None:
    assert export(SPEC, "one", "onnx", module).path != export(SPEC, "two", "onnx", module).path


def test_a_truncated_file_is_written_again() -> None:
    first = export(SPEC, "truncated", "onnx", module)
    content = first.path.read_bytes()
    first.path.write_bytes(content[:100])
    assert export(SPEC, "truncated", "onnx", module).path.read_bytes() == content


def test_a_file_with_a_flipped_bit_is_written_again() -> None:
    first = export(SPEC, "flipped", "onnx", module)
    content = first.path.read_bytes()
    first.path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    second = export(SPEC, "flipped", "onnx", module)
    assert (second.info, second.path.read_bytes()) == (first.info, content)


def test_weights_with_nan_are_never_exported(cache: Path) -> None:
    def broken() -> nn.Module:
        built = module()
        built.get_parameter("classifier.bias").data[0] = float("nan")
        return built

    before = set((cache / "artifacts").glob("*"))
    with pytest.raises(RequirementError, match=r"logits differ from PyTorch's by up to nan .*; check the weights"):
        export(SPEC, "broken", "onnx", broken)
    assert set((cache / "artifacts").glob("*")) == before


@pytest.mark.parametrize("family", ["mobilenet_v1", "googlenet"])
def test_a_graph_accepts_the_parameters_of_another_module(family: Literal["mobilenet_v1", "googlenet"]) -> None:
    """Also if the first module's biases are zero, which the exporter drops."""
    spec = ModelSpec(family=family, resolution=32, classes=10)
    first, second = fold_batch_norm(module(spec)), fold_batch_norm(build(spec))
    graph = to_onnx(first, 32)
    assert first.state_dict().keys() - {tensor.name for tensor in graph.graph.initializer}
    for layer in second.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            assert layer.bias is not None
            layer.bias.data.fill_(0.1)
    images = np.random.default_rng(0).uniform(-1, 1, (2, 3, 32, 32)).astype(np.float32)
    logits = calibrate.logits(with_parameters(graph, second), images)
    with torch.inference_mode():
        expected = second(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_a_format_that_mbbench_does_not_write_is_refused() -> None:
    with pytest.raises(BackendError, match=r"mbbench does not export 'mine'.*must be one of onnx"):
        export(SPEC, "unknown", "mine", module)


class JsonConverter(FakeBackend, Converter):
    makes: ClassVar[Format] = "json"

    def tools(self) -> Mapping[str, str]:
        return {"a converter": "1"}

    def convert(self, artifact: Artifact, target: Path) -> None:
        target.write_text("a network")


def test_a_converters_format_may_be_json() -> None:
    converted = convert(export(SPEC, "json", "onnx", module).artifact(SPEC, 1), JsonConverter())
    assert converted.path.read_text() == "a network"
    assert converted.info.format == "json"
    assert convert(export(SPEC, "json", "onnx", module).artifact(SPEC, 1), JsonConverter()) == converted
