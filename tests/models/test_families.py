"""The network families: number of parameters, resolutions, folding, initialization, loading."""

import importlib.util
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mbbench.errors import UsageError
from mbbench.families import FAMILIES as TABLE
from mbbench.graphs.onnx import to_onnx
from mbbench.models import batch_norms, build, default_preprocessing, fold_batch_norm, load_parameters, randomize
from mbbench.models.modules.vgg16 import AdaptiveAveragePool
from mbbench.spec import ModelSpec

MOBILENET = ModelSpec(alpha=0.25, resolution=64, classes=10)
GOOGLENET = ModelSpec(family="googlenet", resolution=64, classes=10)
# Every family and variant, small.
FAMILIES = (
    MOBILENET,
    *(
        ModelSpec(family, resolution=max(64, info.smallest), classes=10, variant=variant)
        for family, info in TABLE.items()
        for variant in ("standard", *info.variants)
        if (family, variant) != ("mobilenet_v1", "standard")
    ),
)


def parameter_count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def random_images(spec: ModelSpec, batch: int = 4) -> torch.Tensor:
    shape = (batch, 3, spec.resolution, spec.resolution)
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize(
    ("spec", "count"),
    [
        (ModelSpec(), 4_231_976),
        (ModelSpec(alpha=0.75), 2_585_560),
        (ModelSpec(alpha=0.5), 1_331_592),
        (ModelSpec(alpha=0.25), 470_072),
        (ModelSpec(family="vgg16"), 138_357_544),
        (ModelSpec(family="googlenet"), 6_624_904),
        (ModelSpec(family="googlenet", variant="5x5"), 7_005_832),
        (ModelSpec(family="mobilenet_v2"), 3_504_872),
        (ModelSpec(family="squeezenet1_0"), 1_248_424),
        (ModelSpec(family="squeezenet1_1"), 1_235_496),
        (ModelSpec(family="alexnet"), 61_100_840),
        (ModelSpec(family="alexnet", variant="grouped"), 60_965_224),
        (ModelSpec(family="inception_v3", resolution=299), 23_834_568),
        (ModelSpec(family="xception", resolution=299), 22_855_952),
    ],
    ids=lambda value: value.label if isinstance(value, ModelSpec) else None,
)
def test_the_number_of_parameters_is_as_published(spec: ModelSpec, count: int) -> None:
    with torch.device("meta"):
        assert parameter_count(build(spec)) == count


@pytest.mark.parametrize("spec", FAMILIES, ids=lambda spec: spec.label)
def test_networks_accept_any_resolution(spec: ModelSpec) -> None:
    smallest = TABLE[spec.family].smallest
    with torch.device("meta"):
        module = build(spec)
        for resolution in (smallest, smallest + 1, 96):
            assert module(torch.empty(2, 3, resolution, resolution)).shape == (2, 10)
    assert not module.training


@pytest.mark.parametrize("family", ["alexnet", "inception_v3"])
def test_no_smaller_resolution_leaves_a_pixel_for_every_layer(family: str) -> None:
    smallest = TABLE[family].smallest
    assert smallest > 32
    with torch.device("meta"):
        module = build(ModelSpec(family, resolution=smallest))
        with pytest.raises(RuntimeError):
            module(torch.empty(2, 3, smallest - 1, smallest - 1))


@pytest.mark.parametrize("alpha", [0.01, 0.33, 1.7])
def test_alpha_scales_channels_to_at_least_eight(alpha: float) -> None:
    with torch.device("meta"):
        module = build(ModelSpec(alpha=alpha))
    widths = [layer.out_channels for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    assert widths[0] == max(int(32 * alpha), 8)
    assert widths[-1] == max(int(1024 * alpha), 8)


def test_the_variants_have_the_layers_of_the_paper() -> None:
    """The network in Table 4 has no depthwise convolutions, the one in Table 5 has five blocks fewer."""
    with torch.device("meta"):
        standard, full, shallow = (build(ModelSpec(variant=v)) for v in ("standard", "full-conv", "shallow"))

    def convolutions(module: nn.Module) -> list[nn.Conv2d]:
        return [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]

    assert [len(convolutions(module)) for module in (standard, full, shallow)] == [27, 14, 17]
    assert all(layer.groups == 1 for layer in convolutions(full))
    assert sum(layer.groups > 1 for layer in convolutions(standard)) == 13


@pytest.mark.parametrize(
    ("alpha", "widths"), [(0.5, (16, 8, 1280)), (1.4, (48, 24, 1792)), (0.3, (16, 8, 1280)), (0.1, (8, 8, 1280))]
)
def test_mobilenet_v2_rounds_channels_to_multiples_of_eight(alpha: float, widths: tuple[int, ...]) -> None:
    with torch.device("meta"):
        module = build(ModelSpec("mobilenet_v2", alpha))
    convolutions = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    assert (convolutions[0].out_channels, convolutions[2].out_channels, convolutions[-1].out_channels) == widths


@pytest.mark.parametrize("spec", FAMILIES, ids=lambda spec: spec.label)
def test_random_weights_keep_the_scale_and_distinguish_images(spec: ModelSpec) -> None:
    module = build(spec)
    randomize(module, seed=0)
    with torch.inference_mode():
        logits = module(random_images(spec))
    assert torch.isfinite(logits).all()
    assert 1e-3 < logits.abs().max() < 1e3
    assert all(not torch.allclose(a, b, rtol=1e-3, atol=0) for a, b in pairwise(logits))


def test_initialization_depends_only_on_the_seed() -> None:
    modules = [build(MOBILENET) for _ in range(3)]
    state = torch.get_rng_state()
    for module, seed in zip(modules, (0, 0, 1), strict=True):
        randomize(module, seed)
    assert torch.equal(torch.get_rng_state(), state)
    first, same, different = (module.state_dict()["stem.conv.weight"] for module in modules)
    assert torch.equal(first, same)
    assert not torch.equal(first, different)


@pytest.mark.parametrize(
    ("spec", "count"),
    [(MOBILENET, 27), (GOOGLENET, 57)]
    + [
        (ModelSpec(family, resolution=75, classes=10), count)
        for family, count in (("mobilenet_v2", 52), ("inception_v3", 94), ("xception", 40))
    ],
    ids=str,
)
def test_folding_removes_batch_norm_and_keeps_the_logits(spec: ModelSpec, count: int) -> None:
    module = build(spec)
    assert len(batch_norms(module)) == count
    randomize(module, seed=0)
    generator = torch.Generator().manual_seed(1)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.weight.data, layer.bias.data, layer.running_mean, layer.running_var):
                assert tensor is not None
                tensor.uniform_(0.5, 1.5, generator=generator)
    folded = fold_batch_norm(module)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in folded.modules())
    assert any(isinstance(layer, nn.BatchNorm2d) for layer in module.modules())
    with torch.inference_mode():
        expected, logits = module(random_images(spec)), folded(random_images(spec))
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_folded_parameters_load_into_a_folded_network() -> None:
    module = build(MOBILENET)
    randomize(module, seed=0)
    folded = fold_batch_norm(module)
    loaded = fold_batch_norm(build(MOBILENET))
    load_parameters(loaded, folded.state_dict(), "test")
    with torch.inference_mode():
        assert torch.equal(loaded(random_images(MOBILENET)), folded(random_images(MOBILENET)))


def test_an_error_names_the_first_tensor_that_does_not_fit() -> None:
    module = build(MOBILENET)
    state = module.state_dict()
    with pytest.raises(UsageError, match=r"a tensor is missing from x: classifier.bias; give a checkpoint"):
        load_parameters(module, {k: v for k, v in state.items() if k != "classifier.bias"}, "x")
    with pytest.raises(UsageError, match="x has an unexpected tensor: extra"):
        load_parameters(module, state | {"extra": torch.zeros(1)}, "x")
    wide = build(ModelSpec(alpha=0.5, resolution=64, classes=10)).state_dict()
    with pytest.raises(
        UsageError, match=r"stem.conv.weight in x has the wrong shape: \(16, 3, 3, 3\) instead of \(8, 3, 3, 3\)"
    ):
        load_parameters(module, wide, "x")


def test_auxiliary_heads_and_missing_counters_are_ignored() -> None:
    module = build(GOOGLENET)
    state = {k: v for k, v in module.state_dict().items() if not k.endswith("num_batches_tracked")}
    heads = {"aux1.fc1.weight": torch.zeros(1), "AuxLogits.fc.weight": torch.zeros(1)}
    load_parameters(module, state | heads, "x")


@pytest.mark.parametrize("size", range(1, 16))
def test_adaptive_pooling_equals_that_of_torch(size: int) -> None:
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(size))
    torch.testing.assert_close(AdaptiveAveragePool(7)(images), nn.AdaptiveAvgPool2d(7)(images))


def test_pixels_are_normalized_as_the_family_expects() -> None:
    for family in ("mobilenet_v1", "googlenet", "inception_v3", "xception"):
        norm = default_preprocessing(family)
        assert [(pixel - norm.mean[0]) / norm.std[0] for pixel in (0, 0.5, 1)] == [-1, 0, 1]
    for family in ("vgg16", "alexnet", "squeezenet1_0", "squeezenet1_1", "mobilenet_v2"):
        assert default_preprocessing(family).mean == (0.485, 0.456, 0.406)


def torchvision_models() -> Any:
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name in ("nms", "qnms"):  # torchvision's wheel expects these operators, which only a CUDA build defines
        library.define(f"{name}(Tensor boxes, Tensor scores, float threshold) -> Tensor")  # type: ignore[no-untyped-call]
    from torchvision import models

    return models


def timm_xception() -> nn.Module:
    import timm

    module: nn.Module = timm.create_model("legacy_xception", pretrained=False)
    return module


# Family, width multiplier, resolutions, and the other library's network.
ORACLES: dict[str, tuple[float, tuple[int, ...], Callable[[], nn.Module]]] = {
    "vgg16": (1.0, (64, 128, 224), lambda: torchvision_models().vgg16()),
    "googlenet": (1.0, (64, 128, 224), lambda: torchvision_models().googlenet(weights=None, init_weights=False)),
    "mobilenet_v2": (1.4, (64, 97), lambda: torchvision_models().mobilenet_v2(width_mult=1.4)),
    "squeezenet1_0": (1.0, (64, 97), lambda: torchvision_models().squeezenet1_0()),
    "squeezenet1_1": (1.0, (64, 97), lambda: torchvision_models().squeezenet1_1()),
    "alexnet": (1.0, (64, 97, 224), lambda: torchvision_models().alexnet()),
    "inception_v3": (1.0, (75, 128), lambda: torchvision_models().inception_v3(weights=None, init_weights=False)),
    "xception": (1.0, (64, 97), timm_xception),
}


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is None, reason="torchvision is not installed")
@pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")
@pytest.mark.parametrize("family", ORACLES)
def test_another_librarys_checkpoint_gives_its_logits(family: str) -> None:
    alpha, resolutions, make = ORACLES[family]
    oracle = make().eval()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for layer in oracle.modules():
            if isinstance(layer, nn.BatchNorm2d):  # so that its epsilon and its position matter
                assert layer.running_mean is not None and layer.running_var is not None
                layer.running_mean.uniform_(-0.1, 0.1)
                layer.running_var.uniform_(1e-3, 2)
    module = build(ModelSpec(family, alpha))
    load_parameters(module, oracle.state_dict(), "oracle")
    for resolution in resolutions:
        images = random_images(ModelSpec(resolution=resolution), batch=2)
        with torch.inference_mode():
            expected = oracle(images)
            torch.testing.assert_close(module(images), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_xception_with_kerass_padding_pads_even_sizes_on_the_right_and_bottom() -> None:
    """The sizes before the four poolings at 97 pixels are 45, 23, 12 and 6; at 33 they are 13, 7, 4 and 2."""
    generator = torch.Generator().manual_seed(0)
    for resolution in (33, 97):
        spec = ModelSpec("xception", resolution=resolution, classes=10, padding="keras")
        module, symmetric = build(spec), build(ModelSpec("xception", resolution=resolution, classes=10))
        pools = [layer for layer in module.modules() if isinstance(layer, nn.MaxPool2d)]
        others = [layer for layer in symmetric.modules() if isinstance(layer, nn.MaxPool2d)]
        size = (resolution - 3) // 2 + 1 - 2
        for pool, other in zip(pools, others, strict=True):
            x = torch.rand(1, 1, size, size, generator=generator)
            before = size % 2  # "same" padding adds two pixels to an odd size and one to an even size
            padded = torch.nn.functional.pad(x, (before, 1, before, 1), value=float("-inf"))
            assert torch.equal(pool(x), torch.nn.functional.max_pool2d(padded, 3, 2))
            assert torch.equal(pool(x), other(x)) == (size % 2 == 1 or size == 2)
            size = -(-size // 2)


@pytest.mark.parametrize("spec", FAMILIES, ids=lambda spec: spec.label)
def test_every_family_exports_to_onnx_with_its_logits(spec: ModelSpec) -> None:
    ort = pytest.importorskip("onnxruntime")
    module = build(spec)
    randomize(module, seed=0)
    folded = fold_batch_norm(module)
    session = ort.InferenceSession(to_onnx(folded, spec.resolution).SerializeToString())
    images = random_images(spec, batch=3)
    (logits,) = session.run(["logits"], {"images": images.numpy()})
    with torch.inference_mode():
        expected = folded(images).numpy()
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
