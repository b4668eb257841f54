"""Quantization of a whole small MobileNetV1: the graph, its arithmetic, and the search for the best method."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import nn

from mbbench.compress import calibrate, fake, quantize, search
from mbbench.compress.correct import correct
from mbbench.compress.equalize import conv_blocks, equalize
from mbbench.errors import UsageError
from mbbench.graphs.onnx import to_onnx
from mbbench.graphs.tensors import parameters
from mbbench.models import build, fold_batch_norm, normalization, randomize
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


def test_the_dialect_of_cpus(graph: onnx.ModelProto, ranges: dict[str, calibrate.Range]) -> None:
    written = quantize.write(graph, ranges, "u8s8")
    tensors = initializers(written)
    assert tensors["stem.conv.weight_quantized"].data_type == TensorProto.INT8
    assert len(numpy_helper.to_array(tensors["stem.conv.weight_scale"])) == 8  # a scale for each output channel
    assert tensors["stem.conv.bias_quantized"].data_type == TensorProto.INT32
    assert tensors["images_zero_point"].data_type == TensorProto.UINT8
    makers = {node.output[0]: node.op_type for node in written.graph.node}
    assert "Clip" not in makers.values()  # uint8 saturates where ReLU6 clips
    assert makers["logits"] == "Gemm"  # the logits are not quantized


def test_the_dialect_that_leaves_the_stem_in_floats(
    graph: onnx.ModelProto, ranges: dict[str, calibrate.Range], images: torch.Tensor
) -> None:
    stem = ("stem.conv", "stem.act", "blocks.0.0.conv", "blocks.0.0.act")
    assert (quantize.floats(graph, "u8s8"), quantize.floats(graph, "u8s8f")) == ((), stem)
    own, by_hand = quantize.write(graph, ranges, "u8s8f"), quantize.write(graph, ranges, "u8s8", keep=stem)
    assert own.graph == by_hand.graph
    integers = [name for name in initializers(own) if name.endswith("weight_quantized")]
    assert len(integers) == LAYERS - 2 and not {"stem.conv.weight_quantized", "images_scale"} & initializers(own).keys()


def test_the_dialects_of_cpus_that_add_products_in_16_bits(
    graph: onnx.ModelProto, ranges: dict[str, calibrate.Range], images: torch.Tensor
) -> None:
    signed, unsigned, narrow = (quantize.write(graph, ranges, dialect) for dialect in ("u8s8", "u8u8", "u8s7"))
    np.testing.assert_array_equal(calibrate.logits(signed, images.numpy()), calibrate.logits(unsigned, images.numpy()))
    assert initializers(unsigned)["stem.conv.weight_quantized"].data_type == TensorProto.UINT8
    assert initializers(unsigned)["stem.conv.bias_quantized"].data_type == TensorProto.INT32
    integers = [t for name, t in initializers(narrow).items() if name.endswith("weight_quantized")]
    assert len(integers) == LAYERS
    assert {np.abs(numpy_helper.to_array(t)).max() for t in integers} == {quantize.largest_weight("u8s7")} == {64}


def test_corrected_weights_are_written_as_the_integers_they_were_rounded_to(
    module: nn.Module, graph: onnx.ModelProto, ranges: dict[str, calibrate.Range], images: torch.Tensor
) -> None:
    inputs = {layer: ranges[name] for layer, name in quantize.inputs(graph).items()}
    corrected = correct(module, inputs, images, largest=64, keep=("classifier",))
    written = parameters(quantize.write(to_onnx(corrected, SPEC.resolution), ranges, "u8s7"))
    for name, layer in corrected.named_modules():
        if isinstance(layer, nn.Conv2d):
            scale = written[f"{name}.weight_scale"].reshape(-1, 1, 1, 1)
            np.testing.assert_allclose(written[f"{name}.weight"] * scale, layer.weight.detach().numpy(), atol=1e-6)
    assert torch.equal(corrected.classifier.weight, module.classifier.weight)  # type: ignore[union-attr, arg-type]


def test_the_dialect_of_tensorrt(graph: onnx.ModelProto, ranges: dict[str, calibrate.Range]) -> None:
    written = quantize.write(graph, ranges, "s8s8")
    tensors = initializers(written)
    assert {t.data_type for name, t in tensors.items() if name.endswith("_zero_point")} == {TensorProto.INT8}
    assert all(not numpy_helper.to_array(t).any() for name, t in tensors.items() if name.endswith("_zero_point"))
    assert tensors["stem.conv.bias"].data_type == TensorProto.FLOAT


def test_the_dialect_that_leaves_the_stem_and_depthwise_convolutions_in_floats(
    graph: onnx.ModelProto, ranges: dict[str, calibrate.Range]
) -> None:
    depthwise = [f"blocks.{block}.0.{node}" for block in range(13) for node in ("conv", "act")]
    kept = quantize.floats(graph, "s8s8f")
    assert sorted(kept) == sorted(["stem.conv", "stem.act", *depthwise])
    assert quantize.floats(graph, "s8s8") == ()
    own, by_hand = quantize.write(graph, ranges, "s8s8f"), quantize.write(graph, ranges, "s8s8", keep=kept)
    assert own.graph == by_hand.graph
    integers = {name for name in initializers(own) if name.endswith("weight_quantized")}
    assert integers == {
        *(f"blocks.{block}.1.conv.weight_quantized" for block in range(13)),
        "classifier.weight_quantized",
    }


def test_layers_to_keep_stay_as_they_were(graph: onnx.ModelProto, ranges: dict[str, calibrate.Range]) -> None:
    first, *_, last = quantize.pairs(graph)
    assert first == ("stem.conv", "stem.act")
    assert last[:2] == ("blocks.12.1.conv", "blocks.12.1.act") and last[-1] == "classifier"
    kept = (*first, "classifier")
    tensors = initializers(quantize.write(graph, ranges, "u8s8", keep=kept))
    assert tensors["stem.conv.weight"].data_type == TensorProto.FLOAT
    assert "blocks.0.0.conv.weight_quantized" in tensors


def test_weights_are_rounded_to_127_steps_of_each_channel() -> None:
    weights = torch.tensor([[1.0, -0.5, 0.004], [0.1, 0.02, -0.05], [0.0, 0.0, 0.0]])
    got = fake.weights(weights)
    expected = torch.round(weights / torch.tensor([[1 / 127], [0.1 / 127], [1.0]])) * torch.tensor(
        [[1 / 127], [0.1 / 127], [1.0]]
    )
    torch.testing.assert_close(got, expected)


def test_activations_saturate_and_keep_zero() -> None:
    got = fake.activations(torch.tensor([-1.0, 0.0, 3.01, 9.0]), (0.5, 6.0))
    torch.testing.assert_close(got, torch.tensor([0.0, 0.0, round(3.01 * 255 / 6) * 6 / 255, 6.0]))


def test_a_kept_layer_is_transcribed_in_fp32(graph: onnx.ModelProto, ranges: dict[str, calibrate.Range]) -> None:
    kept = quantize.pairs(graph)[7]
    assert kept == ("blocks.2.1.conv", "blocks.2.1.act", "blocks.3.0.conv", "blocks.3.0.act")
    found = parameters(quantize.write(graph, ranges, "u8s8", keep=kept))
    assert found["blocks.3.0.conv.weight"].dtype == np.float32
    assert "blocks.3.0.conv.weight_scale" not in found
    assert found["blocks.3.1.conv.weight"].dtype == np.int8


def test_bias_correction_takes_the_mean_error_off_every_channel(
    module: nn.Module, graph: onnx.ModelProto, ranges: dict[str, calibrate.Range], images: torch.Tensor
) -> None:
    inputs = {layer: ranges[name] for layer, name in quantize.inputs(graph).items()}
    corrected = correct(module, inputs, images)
    assert not torch.equal(corrected.stem.conv.bias, module.stem.conv.bias)  # type: ignore[union-attr, arg-type]
    fp32 = calibrate.logits(graph, images.numpy())

    def bias(network: onnx.ModelProto) -> float:
        logits = calibrate.logits(quantize.write(network, ranges, "u8s8"), images.numpy())
        return float(np.abs((logits - fp32).mean(axis=0)).max())

    assert bias(to_onnx(corrected, SPEC.resolution)) < 0.5 * bias(graph)


def test_equalizing_fills_the_range_and_keeps_the_logits(module: nn.Module, images: torch.Tensor) -> None:
    equal = equalize(module, images)
    with torch.inference_mode():
        torch.testing.assert_close(equal(images), module(images), rtol=1e-4, atol=1e-4)
        before, after = (conv_blocks(network)[2].conv.weight.abs().sum() for network in (module, equal))
        first = [nn.Sequential(*conv_blocks(network)[:3]) for network in (module, equal)]
        peaks = [network(images).amax((0, 2, 3)) for network in first]
    assert after > before
    alive = (peaks[0] > 6 / 1.1 / 32) & (peaks[0] < 6 / 1.1)
    assert alive.any()
    torch.testing.assert_close(peaks[1][alive], torch.full((int(alive.sum()),), 6 / 1.1))


def test_another_family_is_not_equalized() -> None:
    assert conv_blocks(build(ModelSpec(family="googlenet", classes=5))) == []


def data(labelled: bool = True) -> search.Calibration:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), np.uint8)
    labels = np.arange(40) % 10
    return search.calibration(pixels, labels, normalization("mobilenet_v1"), "noise", "ff", labelled=labelled)


def test_images_to_calibrate_and_to_judge_are_disjoint() -> None:
    found = data()
    own = {image.tobytes() for image in found.images}
    assert len(own) == len(found.held_out) == 20
    assert not own & {image.tobytes() for image in found.held_out}
    assert found.labels is not None and len(found.labels) == 20


def test_one_image_cannot_calibrate() -> None:
    pixels = np.zeros((1, 32, 32, 3), np.uint8)
    with pytest.raises(UsageError, match="noise has 1 image to calibrate with"):
        search.calibration(pixels, np.zeros(1, np.int64), normalization("vgg16"), "noise", "f", labelled=False)


def test_the_search_takes_the_best_of_its_candidates_once(
    module: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MBBENCH_CACHE", str(tmp_path))
    found = search.prepare(SPEC, "key", lambda: module, lambda: data(labelled=False), "ff")
    info = found.info
    assert [(c.equalized, c.corrected) for c in info.candidates] == [
        *[(False, False)] * 3, (False, True), *[(True, False)] * 3, (True, True),
    ]  # fmt: skip
    assert info.chosen == max(info.candidates, key=lambda c: (c.share, -c.logit_rmse))
    assert (info.judged_by, info.images, info.held_out, info.kept_fp32) == ("agreement", 20, 20, ())
    again = search.prepare(SPEC, "key", lambda: pytest.fail("made twice"), lambda: pytest.fail("read twice"), "ff")
    assert again == found
    assert len(found.write("u8s8").graph.node) > LAYERS


def test_accuracy_control_keeps_layers_until_nothing_is_lost(
    module: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MBBENCH_CACHE", str(tmp_path))
    found = search.prepare(SPEC, "key", lambda: module, lambda: data(labelled=False), "ff", max_drop=0.0)
    if max(candidate.share for candidate in found.info.candidates) < 1:
        assert found.info.kept_fp32
    truth = calibrate.logits(to_onnx(module, 32), data().held_out).argmax(axis=1)
    answers = calibrate.logits(found.write("u8s8"), data().held_out).argmax(axis=1)
    assert (answers == truth).all()


def test_the_search_judges_with_what_the_dialect_leaves_in_floats(
    module: nn.Module, graph: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MBBENCH_CACHE", str(tmp_path))
    found = search.prepare(SPEC, "key", lambda: module, lambda: data(labelled=False), "ff", dialect="s8s8f")
    assert found.info.kept_fp32 == quantize.floats(graph, "s8s8f")


def test_noise_is_labelled_as_such() -> None:
    found = search.random_calibration(32)
    assert (found.source, found.images.shape, found.labels) == ("random", (32, 3, 32, 32), None)
