import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from mbbench.backend import Dialect
from mbbench.compress import calibrate, quantize
from mbbench.graphs.fx import to_module
from mbbench.graphs.onnx import to_onnx
from mbbench.models import build, fold_batch_norm, randomize
from mbbench.spec import ModelSpec

SPECS = (
    ModelSpec(alpha=0.25, resolution=64, classes=10),
    ModelSpec(alpha=0.25, resolution=64, classes=10, padding="keras"),
    ModelSpec("googlenet", resolution=64, classes=10),
    pytest.param(ModelSpec("vgg16", resolution=32, classes=10), marks=pytest.mark.slow),
)


def graph(spec: ModelSpec) -> onnx.ModelProto:
    module = build(spec)
    randomize(module, seed=0)
    folded, generator = fold_batch_norm(module), torch.Generator().manual_seed(0)
    for name, parameter in folded.named_parameters():
        if name.endswith("bias"):  # all zero until now, which the exporter drops
            torch.nn.init.uniform_(parameter, -0.1, 0.1, generator=generator)
    return to_onnx(folded, spec.resolution)


def images(spec: ModelSpec, count: int = 4) -> NDArray[np.float32]:
    shape = (count, 3, spec.resolution, spec.resolution)
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


def quantized(spec: ModelSpec, dialect: Dialect) -> onnx.ModelProto:
    plain = graph(spec)
    return quantize.write(plain, calibrate.ranges(calibrate.statistics(plain, images(spec)), "minmax"), dialect)


def logits(model: onnx.ModelProto, given: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.inference_mode():
        found: NDArray[np.float32] = to_module(model)(torch.from_numpy(given)).numpy()
    return found


@pytest.mark.parametrize("spec", SPECS)
def test_the_module_computes_what_the_graph_does(spec: ModelSpec) -> None:
    expected = calibrate.logits(graph(spec), images(spec))
    np.testing.assert_allclose(logits(graph(spec), images(spec)), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("dialect", ["u8s8", "s8s8"])
@pytest.mark.parametrize("padding", ["symmetric", "keras"])
def test_a_quantized_graph_keeps_its_scales(dialect: Dialect, padding: str) -> None:
    """A value halfway between two integers may round either way, which moves an image's logits by a percent or two."""
    model = quantized(ModelSpec(alpha=0.25, resolution=64, classes=10, padding=padding), dialect)  # type: ignore[arg-type]
    given = images(ModelSpec(resolution=64), 8)
    expected = calibrate.logits(model, given)
    errors = np.sort(np.abs(logits(model, given) - expected).max(axis=1) / np.abs(expected).max())
    assert errors[len(errors) // 2] < 1e-5
    assert errors[-1] < 0.05


def test_every_weight_stays_int8_and_every_convolution_between_its_pairs() -> None:
    """Where padding is to one side, a pair stands between it and the convolution too."""
    model = quantized(ModelSpec(alpha=0.25, resolution=64, classes=10, padding="keras"), "u8s8")
    network = to_module(model)
    operators = torch.ops.quantized_decomposed
    convolutions = [node for node in network.graph.nodes if node.target is torch.nn.functional.conv2d]
    assert len(convolutions) == 27
    for node in convolutions:
        given, weight = node.args[:2]
        assert given.target is operators.dequantize_per_tensor.default
        assert weight.target is operators.dequantize_per_channel.default
        assert next(iter(node.users)).target is operators.quantize_per_tensor.default
    assert sum(buffer.dtype == torch.int8 for buffer in network.buffers()) == 28


def test_quantized_biases_become_the_float32_that_they_stand_for() -> None:
    spec = ModelSpec(alpha=0.25, resolution=32, classes=10)
    folded = fold_batch_norm(build(spec))
    for name, parameter in folded.named_parameters():
        if name.endswith(".bias"):  # random weights leave none
            torch.nn.init.constant_(parameter, 0.1)
    plain = to_onnx(folded, spec.resolution)
    ranges = calibrate.ranges(calibrate.statistics(plain, images(spec)), "minmax")
    network = to_module(quantize.write(plain, ranges, "u8s8"))
    biases = [node.args[2] for node in network.graph.nodes if node.target is torch.nn.functional.conv2d]
    assert len(biases) == 27
    for bias in biases:
        found = network.get_buffer(str(bias.target))
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, torch.full_like(found, 0.1), rtol=0.01, atol=0)


def test_an_operator_that_is_not_exported_is_named() -> None:
    node = onnx.helper.make_node("Softmax", ["images"], ["logits"], name="last")
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 4]) for name in ("images", "logits")
    ]
    with pytest.raises(ValueError, match=r"operator Softmax \(last\) is unknown"):
        to_module(onnx.helper.make_model(onnx.helper.make_graph([node], "g", values[:1], values[1:])))
