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


def fp32_graph(spec: ModelSpec) -> onnx.ModelProto:
    module = build(spec)
    randomize(module, seed=0)
    folded, generator = fold_batch_norm(module), torch.Generator().manual_seed(0)
    for name, parameter in folded.named_parameters():
        if name.endswith("bias"):  # all zero so far, and the exporter drops a bias of zeros
            torch.nn.init.uniform_(parameter, -0.1, 0.1, generator=generator)
    return to_onnx(folded, spec.resolution)


def images(spec: ModelSpec, count: int = 4) -> NDArray[np.float32]:
    shape = (count, 3, spec.resolution, spec.resolution)
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


def quantized(spec: ModelSpec, dialect: Dialect) -> onnx.ModelProto:
    graph = fp32_graph(spec)
    return quantize.write(graph, calibrate.ranges(calibrate.statistics(graph, images(spec)), "minmax"), dialect)


def logits(model: onnx.ModelProto, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.inference_mode():
        values: NDArray[np.float32] = to_module(model)(torch.from_numpy(inputs)).numpy()
    return values


@pytest.mark.parametrize("spec", SPECS)
def test_the_module_computes_what_the_graph_computes(spec: ModelSpec) -> None:
    graph = fp32_graph(spec)
    expected = calibrate.logits(graph, images(spec))
    np.testing.assert_allclose(logits(graph, images(spec)), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("dialect", ["u8s8", "s8s8"])
@pytest.mark.parametrize("padding", ["symmetric", "keras"])
def test_a_quantized_graph_keeps_its_scales(dialect: Dialect, padding: str) -> None:
    """A value halfway between two integers may round either way, which moves an image's logits by 1 or 2 %."""
    model = quantized(ModelSpec(alpha=0.25, resolution=64, classes=10, padding=padding), dialect)  # type: ignore[arg-type]
    inputs = images(ModelSpec(resolution=64), 8)
    expected = calibrate.logits(model, inputs)
    errors = np.sort(np.abs(logits(model, inputs) - expected).max(axis=1) / np.abs(expected).max())
    assert errors[len(errors) // 2] < 1e-5
    assert errors[-1] < 0.05


def test_every_weight_stays_int8_and_every_convolution_keeps_its_pairs() -> None:
    """With one-sided padding there is also a pair between the padding and the convolution."""
    model = quantized(ModelSpec(alpha=0.25, resolution=64, classes=10, padding="keras"), "u8s8")
    network = to_module(model)
    operators = torch.ops.quantized_decomposed
    convolutions = [node for node in network.graph.nodes if node.target is torch.nn.functional.conv2d]
    assert len(convolutions) == 27
    for node in convolutions:
        activation, weight = node.args[:2]
        assert activation.target is operators.dequantize_per_tensor.default
        assert weight.target is operators.dequantize_per_channel.default
        assert next(iter(node.users)).target is operators.quantize_per_tensor.default
    assert sum(buffer.dtype == torch.int8 for buffer in network.buffers()) == 28


def test_quantized_biases_become_the_float32_values_that_they_represent() -> None:
    spec = ModelSpec(alpha=0.25, resolution=32, classes=10)
    folded = fold_batch_norm(build(spec))
    for name, parameter in folded.named_parameters():
        if name.endswith(".bias"):  # zero in random weights, and the exporter drops a bias of zeros
            torch.nn.init.constant_(parameter, 0.1)
    graph = to_onnx(folded, spec.resolution)
    ranges = calibrate.ranges(calibrate.statistics(graph, images(spec)), "minmax")
    network = to_module(quantize.write(graph, ranges, "u8s8"))
    biases = [node.args[2] for node in network.graph.nodes if node.target is torch.nn.functional.conv2d]
    assert len(biases) == 27
    for bias in biases:
        values = network.get_buffer(str(bias.target))
        assert values.dtype == torch.float32
        torch.testing.assert_close(values, torch.full_like(values, 0.1), rtol=0.01, atol=0)


def test_the_error_names_an_unknown_operator() -> None:
    node = onnx.helper.make_node("Einsum", ["images"], ["logits"], name="last")
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 4]) for name in ("images", "logits")
    ]
    with pytest.raises(ValueError, match=r"operator Einsum \(last\) is not supported"):
        to_module(onnx.helper.make_model(onnx.helper.make_graph([node], "g", values[:1], values[1:])))
