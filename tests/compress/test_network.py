"""Quantization of a whole small MobileNetV1: the graph, its arithmetic, and the search for the best method."""

from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import nn

from mbbench.compress import calibrate, fake, quantize, search
from mbbench.compress.correct import correct
from mbbench.compress.equalize import equalize, scalable_pairs
from mbbench.errors import UsageError
from mbbench.graphs.fx import to_module
from mbbench.graphs.onnx import to_onnx
from mbbench.models import build, default_preprocessing, fold_batch_norm, randomize
from mbbench.models.graph_cost import count_graph
from mbbench.spec import ModelSpec

SPEC = ModelSpec(alpha=0.25, resolution=32, classes=10)
LAYERS = 28


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(24, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture(scope="module")
def module() -> nn.Module:
    network = build(SPEC)
    randomize(network, seed=0)
    generator = torch.Generator().manual_seed(1)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.2, generator=generator)  # type: ignore[union-attr]
            layer.running_var.uniform_(0.2, 2.0, generator=generator)  # type: ignore[union-attr]
    return fold_batch_norm(network)


@pytest.fixture(scope="module")
def graph(module: nn.Module) -> onnx.ModelProto:
    return to_onnx(module, SPEC.resolution)


@pytest.fixture(scope="module")
def ranges(graph: onnx.ModelProto, images: torch.Tensor) -> dict[str, calibrate.Range]:
    return calibrate.ranges(calibrate.statistics(graph, images.numpy()), "minmax")


def initializers(graph: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    return {tensor.name: tensor for tensor in graph.graph.initializer}


def test_a_stem_before_pooling_is_quantized_in_u8s8f(graph: onnx.ModelProto) -> None:
    assert quantize.fp32_nodes(graph, "u8s8f")[0] == "stem.conv"
    squeezenet = build(ModelSpec("squeezenet1_1", resolution=64, classes=10))
    assert quantize.fp32_nodes(to_onnx(fold_batch_norm(squeezenet), 64), "u8s8f") == ()


class Shuffled(nn.Module):
    """Two convolutions with a channel shuffle between them, as ShuffleNet's."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.next, self.head = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 1), nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        x = x.reshape(-1, 2, 4, 16, 16).transpose(1, 2).flatten(1, 2)
        return self.head(self.next(x).mean((2, 3)))  # type: ignore[no-any-return]


def test_nothing_is_between_the_parts_of_a_channel_shuffle(images: torch.Tensor) -> None:
    graph = to_onnx(Shuffled().eval(), 32)
    written = quantize.write(graph, calibrate.ranges(calibrate.statistics(graph, images.numpy()), "mse"), "u8s8")
    producers = {output: node for node in written.graph.node for output in node.output}
    (transpose,) = [node for node in written.graph.node if node.op_type == "Transpose"]
    first = producers[transpose.input[0]]
    (second,) = [node for node in written.graph.node if node.input[0] == transpose.output[0]]
    assert (first.op_type, second.op_type) == ("Reshape", "Reshape")
    before = producers[first.input[0]]
    (after,) = [node for node in written.graph.node if node.input[0] == second.output[0]]
    assert (before.op_type, after.op_type) == ("DequantizeLinear", "QuantizeLinear")
    scales = [numpy_helper.to_array(initializers(written)[node.input[1]]) for node in (before, after)]
    assert scales[0] == scales[1]


class Swishes(nn.Module):
    """A convolution before hard swish, one before SiLU, and one before a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.next, self.last = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.hardswish(self.stem(x))
        x = nn.functional.silu(self.next(x))
        return self.head((x + self.last(x)).mean((2, 3)))  # type: ignore[no-any-return]


@pytest.mark.parametrize("dialect", ["u8s8", "u8s8p"])
def test_only_u8s8p_leaves_the_input_of_an_activation_unrounded(
    images: torch.Tensor, dialect: Literal["u8s8", "u8s8p"]
) -> None:
    torch.manual_seed(0)
    graph = to_onnx(Swishes().eval(), 32)
    statistics = calibrate.statistics(graph, images.numpy())
    written = quantize.write(graph, calibrate.ranges(statistics, "minmax"), dialect)
    producers = {output: node for node in written.graph.node for output in node.output}

    def before(op_type: str) -> list[str]:
        (node,) = [node for node in written.graph.node if node.op_type == op_type]
        return sorted(producers[name].op_type for name in node.input)

    rounded = "DequantizeLinear" if dialect == "u8s8" else "Conv"
    assert (before("HardSwish"), before("Sigmoid")) == ([rounded], [rounded])
    assert before("Mul") == sorted([rounded, "Sigmoid"])
    assert before("Add") == ["DequantizeLinear", "DequantizeLinear"]


def test_a_batch_norm_between_activations_stays_in_floats(images: torch.Tensor) -> None:
    dense = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(8, 10),
    ).eval()  # fmt: skip
    graph = to_onnx(dense, 32)
    ranges = calibrate.ranges(calibrate.statistics(graph, images.numpy()), "minmax")
    written = quantize.write(graph, ranges, "u8s8p").graph
    norm = next(node for node in written.node if node.op_type == "BatchNormalization")
    (relu,) = quantize.readers(written)[norm.output[0]]
    (rounding,) = quantize.readers(written)[relu.output[0]]
    assert (relu.op_type, rounding.op_type) == ("Relu", "QuantizeLinear")
    assert all(name in {tensor.name for tensor in written.initializer} for name in norm.input[1:])


def test_a_range_before_hard_swish_begins_where_hard_swish_does(images: torch.Tensor) -> None:
    torch.manual_seed(0)
    graph = to_onnx(Swishes().eval(), 32)
    (name,) = [node.input[0] for node in graph.graph.node if node.op_type == "HardSwish"]
    ranges = calibrate.ranges(calibrate.statistics(graph, images.numpy()), "minmax") | {name: (-9.0, 4.65)}
    scale = numpy_helper.to_array(initializers(quantize.write(graph, ranges, "u8s8"))[f"{name}_scale"])
    assert scale == pytest.approx((4.65 + 3) / 255)


def test_u8s8_has_the_types_that_cpus_multiply(graph: onnx.ModelProto, ranges: dict[str, calibrate.Range]) -> None:
    written = quantize.write(graph, ranges, "u8s8")
    tensors = initializers(written)
    assert tensors["stem.conv.weight_quantized"].data_type == TensorProto.INT8
    assert len(numpy_helper.to_array(tensors["stem.conv.weight_scale"])) == 8  # a scale for each output channel
    assert tensors["stem.conv.bias_quantized"].data_type == TensorProto.INT32
    assert tensors["images_zero_point"].data_type == TensorProto.UINT8
    producers = {node.output[0]: node.op_type for node in written.graph.node}
    assert "Clip" not in producers.values()  # uint8 saturates where ReLU6 clips
    assert producers["logits"] == "Gemm"  # the logits are not quantized


def test_u8s8f_keeps_the_stem_and_the_first_depthwise_convolution_in_fp32(
    graph: onnx.ModelProto, ranges: dict[str, calibrate.Range]
) -> None:
    stem = ("stem.conv", "stem.act", "blocks.0.0.conv", "blocks.0.0.act")
    assert (quantize.fp32_nodes(graph, "u8s8"), quantize.fp32_nodes(graph, "u8s8f")) == ((), stem)
    written, by_hand = quantize.write(graph, ranges, "u8s8f"), quantize.write(graph, ranges, "u8s8", keep_fp32=stem)
    assert written.graph == by_hand.graph
    tensors = initializers(written)
    assert sum(name.endswith("weight_quantized") for name in tensors) == LAYERS - 2
    assert not {"stem.conv.weight_quantized", "images_scale"} & tensors.keys()


def test_u8u8_and_u8s7_have_the_types_for_cpus_that_add_products_in_16_bits(
    graph: onnx.ModelProto, ranges: dict[str, calibrate.Range], images: torch.Tensor
) -> None:
    signed, unsigned, narrow = (quantize.write(graph, ranges, dialect) for dialect in ("u8s8", "u8u8", "u8s7"))
    np.testing.assert_array_equal(calibrate.logits(signed, images.numpy()), calibrate.logits(unsigned, images.numpy()))
    assert initializers(unsigned)["stem.conv.weight_quantized"].data_type == TensorProto.UINT8
    assert initializers(unsigned)["stem.conv.bias_quantized"].data_type == TensorProto.INT32
    integers = [t for name, t in initializers(narrow).items() if name.endswith("weight_quantized")]
    assert len(integers) == LAYERS
    assert {np.abs(numpy_helper.to_array(t)).max() for t in integers} == {quantize.weight_quant_max("u8s7")} == {64}


def test_corrected_weights_are_written_as_the_integers_they_were_rounded_to(
    module: nn.Module, graph: onnx.ModelProto, ranges: dict[str, calibrate.Range], images: torch.Tensor
) -> None:
    inputs = {layer: ranges[name] for layer, name in quantize.layer_inputs(graph).items()}
    corrected = correct(module, inputs, images, quant_max=64, keep_fp32=("classifier",))
    tensors = initializers(quantize.write(to_onnx(corrected, SPEC.resolution), ranges, "u8s7"))
    written = {name: numpy_helper.to_array(tensor) for name, tensor in tensors.items()}
    for name, layer in corrected.named_modules():
        if isinstance(layer, nn.Conv2d):
            weights = written[f"{name}.weight_quantized"] * written[f"{name}.weight_scale"].reshape(-1, 1, 1, 1)
            np.testing.assert_allclose(weights, layer.weight.detach().numpy(), atol=1e-6)
    assert torch.equal(corrected.classifier.weight, module.classifier.weight)  # type: ignore[union-attr, arg-type]


def test_s8s8_is_symmetric_with_fp32_biases(graph: onnx.ModelProto, ranges: dict[str, calibrate.Range]) -> None:
    written = quantize.write(graph, ranges, "s8s8")
    tensors = initializers(written)
    assert {t.data_type for name, t in tensors.items() if name.endswith("_zero_point")} == {TensorProto.INT8}
    assert all(not numpy_helper.to_array(t).any() for name, t in tensors.items() if name.endswith("_zero_point"))
    assert tensors["stem.conv.bias"].data_type == TensorProto.FLOAT


def test_s8s8f_keeps_the_stem_and_the_depthwise_convolutions_in_fp32(
    graph: onnx.ModelProto, ranges: dict[str, calibrate.Range]
) -> None:
    depthwise = [f"blocks.{block}.0.{node}" for block in range(13) for node in ("conv", "act")]
    kept = quantize.fp32_nodes(graph, "s8s8f")
    assert sorted(kept) == sorted(["stem.conv", "stem.act", *depthwise])
    assert quantize.fp32_nodes(graph, "s8s8") == ()
    written, by_hand = quantize.write(graph, ranges, "s8s8f"), quantize.write(graph, ranges, "s8s8", keep_fp32=kept)
    assert written.graph == by_hand.graph
    integers = {name for name in initializers(written) if name.endswith("weight_quantized")}
    assert integers == {
        *(f"blocks.{block}.1.conv.weight_quantized" for block in range(13)),
        "classifier.weight_quantized",
    }


def test_layers_kept_in_fp32_are_not_quantized(graph: onnx.ModelProto, ranges: dict[str, calibrate.Range]) -> None:
    first, *_, last = quantize.layer_pairs(graph)
    assert first == ("stem.conv", "stem.act")
    assert last[:2] == ("blocks.12.1.conv", "blocks.12.1.act") and last[-1] == "classifier"
    kept = (*first, "classifier")
    tensors = initializers(quantize.write(graph, ranges, "u8s8", keep_fp32=kept))
    assert tensors["stem.conv.weight"].data_type == TensorProto.FLOAT
    assert "blocks.0.0.conv.weight_quantized" in tensors


def test_weights_are_rounded_to_127_steps_per_channel() -> None:
    weights = torch.tensor([[1.0, -0.5, 0.004], [0.1, 0.02, -0.05], [0.0, 0.0, 0.0]])
    rounded = fake.weights(weights)
    scale = torch.tensor([[1 / 127], [0.1 / 127], [1.0]])
    torch.testing.assert_close(rounded, torch.round(weights / scale) * scale)


def test_activations_saturate_and_keep_zero() -> None:
    rounded = fake.activations(torch.tensor([-1.0, 0.0, 3.01, 9.0]), (0.5, 6.0))
    torch.testing.assert_close(rounded, torch.tensor([0.0, 0.0, round(3.01 * 255 / 6) * 6 / 255, 6.0]))


def test_the_parameters_of_a_kept_layer_are_fp32(graph: onnx.ModelProto, ranges: dict[str, calibrate.Range]) -> None:
    kept = quantize.layer_pairs(graph)[7]
    assert kept == ("blocks.2.1.conv", "blocks.2.1.act", "blocks.3.0.conv", "blocks.3.0.act")
    tensors = initializers(quantize.write(graph, ranges, "u8s8", keep_fp32=kept))
    assert tensors["blocks.3.0.conv.weight"].data_type == TensorProto.FLOAT
    assert "blocks.3.0.conv.weight_quantized" not in tensors
    assert tensors["blocks.3.1.conv.weight_quantized"].data_type == TensorProto.INT8


def test_bias_correction_reduces_the_mean_error_of_the_logits(
    module: nn.Module, graph: onnx.ModelProto, ranges: dict[str, calibrate.Range], images: torch.Tensor
) -> None:
    inputs = {layer: ranges[name] for layer, name in quantize.layer_inputs(graph).items()}
    corrected = correct(module, inputs, images)
    assert not torch.equal(corrected.stem.conv.bias, module.stem.conv.bias)  # type: ignore[union-attr, arg-type]
    fp32 = calibrate.logits(graph, images.numpy())

    def largest_mean_error(network: onnx.ModelProto) -> float:
        logits = calibrate.logits(quantize.write(network, ranges, "u8s8"), images.numpy())
        return float(np.abs((logits - fp32).mean(axis=0)).max())

    assert largest_mean_error(to_onnx(corrected, SPEC.resolution)) < 0.5 * largest_mean_error(graph)


def test_equalization_fills_the_range_and_keeps_the_logits(graph: onnx.ModelProto, images: torch.Tensor) -> None:
    network = to_module(graph)
    pairs = scalable_pairs(graph)
    assert pairs[:2] == [("stem.conv", "blocks.0.0.conv"), ("blocks.0.1.conv", "blocks.1.0.conv")]
    assert len(pairs) == 13
    equalized = equalize(network, pairs, images)
    peaks: list[torch.Tensor] = []
    with torch.inference_mode():
        for module in (network, equalized):
            module.get_submodule("blocks.0.1.conv").register_forward_hook(
                lambda _, __, output: peaks.append(output.clamp(0, 6).amax((0, 2, 3)))
            )
        torch.testing.assert_close(equalized(images), network(images), rtol=1e-4, atol=1e-4)
    peaks.reverse()  # `equalized` ran first
    before, after = (module.get_parameter("blocks.0.1.conv.weight").abs().sum() for module in (network, equalized))
    assert after > before
    scalable = (peaks[0] > 6 / 1.1 / 32) & (peaks[0] < 6 / 1.1)  # by at most 32, to 6 / 1.1
    assert scalable.any()
    torch.testing.assert_close(peaks[1][scalable], torch.full((int(scalable.sum()),), 6 / 1.1))


def test_a_network_without_relu6_has_nothing_to_equalize() -> None:
    assert scalable_pairs(to_onnx(fold_batch_norm(build(ModelSpec(family="googlenet", classes=5))), 64)) == []


def data(labeled: bool = True) -> calibrate.Calibration:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), np.uint8)
    labels = np.arange(40) % 10
    return calibrate.split_for_calibration(
        pixels, labels, default_preprocessing("mobilenet_v1"), "noise", "ff", labeled=labeled
    )


def test_calibration_and_validation_images_are_disjoint() -> None:
    split = data()
    calibrating = {image.tobytes() for image in split.images}
    assert len(calibrating) == len(split.validation_images) == 20
    assert not calibrating & {image.tobytes() for image in split.validation_images}
    assert split.validation_labels is not None and len(split.validation_labels) == 20


def test_one_image_cannot_calibrate() -> None:
    pixels = np.zeros((1, 32, 32, 3), np.uint8)
    with pytest.raises(
        UsageError, match="noise has too few images to calibrate with: 1; give --calibration with at least 2"
    ):
        calibrate.split_for_calibration(
            pixels, np.zeros(1, np.int64), default_preprocessing("vgg16"), "noise", "f", labeled=False
        )


def test_the_search_chooses_the_best_candidate_and_runs_once(
    module: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MBBENCH_CACHE", str(tmp_path))
    quantization = search.best_quantization(SPEC, "key", lambda: module, lambda: data(labeled=False), "ff")
    info = quantization.info
    assert [(c.equalized, c.corrected) for c in info.candidates] == [
        *[(False, False)] * 4, (False, True), *[(True, False)] * 4, (True, True),
    ]  # fmt: skip
    smallest = min(candidate.logit_rmse for candidate in info.candidates)
    alike = [candidate for candidate in info.candidates if candidate.logit_rmse <= 1.05 * smallest]
    assert info.chosen == max(alike, key=lambda candidate: (candidate.share, -candidate.logit_rmse))
    assert (info.judged_by, info.images, info.held_out, info.kept_fp32) == ("agreement", 20, 20, ())
    again = search.best_quantization(
        SPEC, "key", lambda: pytest.fail("built twice"), lambda: pytest.fail("loaded twice"), "ff"
    )
    assert again == quantization
    assert len(quantization.write("u8s8").graph.node) > LAYERS


@pytest.mark.parametrize(
    ("rivals_error", "rivals_share", "chosen_error"),
    [(0.186, 1.0, 0.160), (0.166, 0.95, 0.166), (0.166, 0.85, 0.160)],
    ids=["more error, more answers", "like error, more answers", "like error, fewer answers"],
)
def test_the_search_goes_by_error_and_by_answers_only_where_errors_are_alike(
    module: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rivals_error: float, rivals_share: float,
    chosen_error: float,
) -> None:  # fmt: skip
    monkeypatch.setenv("MBBENCH_CACHE", str(tmp_path))
    outcomes = [(rivals_share, rivals_error), (0.9, 0.160), *[(0.5, 0.5)] * 8]
    monkeypatch.setattr(search._Evaluator, "__call__", lambda *_: outcomes.pop(0))
    quantization = search.best_quantization(SPEC, "key", lambda: module, lambda: data(labeled=False), "ff")
    assert quantization.info.chosen.logit_rmse == chosen_error


@pytest.mark.parametrize(("peak_images", "corrected_on"), [(64, 20), (18, 18), (3, 16)])
def test_a_network_with_large_activations_is_corrected_on_fewer_images(
    graph: onnx.ModelProto, module: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, peak_images: int,
    corrected_on: int,
) -> None:  # fmt: skip
    counts = []

    def count(network: nn.Module, inputs: object, images: torch.Tensor, *_: object) -> nn.Module:
        counts.append(len(images))
        return network

    monkeypatch.setenv("MBBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr("mbbench.compress.correct.correct", count)
    monkeypatch.setattr(search, "_CORRECTION_BYTES", peak_images * count_graph(graph).activation_peak_bytes)
    search.best_quantization(SPEC, "key", lambda: module, lambda: data(labeled=False), "ff")
    assert counts == [corrected_on] * 2


def test_an_error_of_logits_that_are_not_finite_is_no_nan(module: nn.Module, tmp_path: Path,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setenv("MBBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(calibrate, "logits", lambda _, images: np.full((len(images), 10), -np.inf, np.float32))
    quantization = search.best_quantization(SPEC, "key", lambda: module, lambda: data(labeled=False), "ff")
    assert {candidate.logit_rmse for candidate in quantization.info.candidates} == {3.4e38}


def test_accuracy_control_keeps_layers_in_fp32_until_nothing_is_lost(
    module: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MBBENCH_CACHE", str(tmp_path))
    quantization = search.best_quantization(
        SPEC, "key", lambda: module, lambda: data(labeled=False), "ff", max_drop=0.0
    )
    if max(candidate.share for candidate in quantization.info.candidates) < 1:
        assert quantization.info.kept_fp32
    images = data().validation_images
    fp32 = calibrate.logits(to_onnx(module, 32), images).argmax(axis=1)
    int8 = calibrate.logits(quantization.write("u8s8"), images).argmax(axis=1)
    assert (int8 == fp32).all()


def test_the_search_keeps_the_fp32_nodes_of_the_dialect(
    module: nn.Module, graph: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MBBENCH_CACHE", str(tmp_path))
    quantization = search.best_quantization(
        SPEC, "key", lambda: module, lambda: data(labeled=False), "ff", dialect="s8s8f"
    )
    assert quantization.info.kept_fp32 == quantize.fp32_nodes(graph, "s8s8f")


def test_a_calibration_with_noise_has_the_source_random() -> None:
    noise = calibrate.random_calibration((32, 32))
    assert (noise.source, noise.images.shape, noise.validation_labels) == ("random", (32, 3, 32, 32), None)
