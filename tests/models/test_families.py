"""The three families: number of parameters, resolutions, folding, initialization, loading."""

import importlib.util
from itertools import pairwise

import pytest
import torch
from torch import nn

from mbbench.errors import UsageError
from mbbench.models import build, default_preprocessing, fold_batch_norm, load_parameters, randomize
from mbbench.models.vgg16 import AdaptiveAveragePool
from mbbench.spec import ModelSpec

MOBILENET = ModelSpec(alpha=0.25, resolution=64, classes=10)
FAMILIES = (
    MOBILENET,
    ModelSpec(family="vgg16", resolution=64, classes=10),
    ModelSpec(family="googlenet", resolution=64, classes=10),
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
    ],
    ids=lambda value: value.label if isinstance(value, ModelSpec) else None,
)
def test_the_number_of_parameters_is_as_published(spec: ModelSpec, count: int) -> None:
    with torch.device("meta"):
        assert parameter_count(build(spec)) == count


@pytest.mark.parametrize("spec", FAMILIES, ids=lambda spec: spec.family)
@pytest.mark.parametrize("resolution", [32, 33, 96])
def test_networks_accept_any_resolution(spec: ModelSpec, resolution: int) -> None:
    with torch.device("meta"):
        module = build(spec)
        assert module(torch.empty(2, 3, resolution, resolution)).shape == (2, 10)
    assert not module.training


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


@pytest.mark.parametrize("spec", FAMILIES, ids=lambda spec: spec.family)
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


@pytest.mark.parametrize("spec", [FAMILIES[0], FAMILIES[2]], ids=lambda spec: spec.family)
def test_folding_removes_batch_norm_and_keeps_the_logits(spec: ModelSpec) -> None:
    module = build(spec)
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
    module = build(FAMILIES[2])
    state = {k: v for k, v in module.state_dict().items() if not k.endswith("num_batches_tracked")}
    load_parameters(module, state | {"aux1.fc1.weight": torch.zeros(1)}, "x")


@pytest.mark.parametrize("size", range(1, 16))
def test_adaptive_pooling_equals_that_of_torch(size: int) -> None:
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(size))
    torch.testing.assert_close(AdaptiveAveragePool(7)(images), nn.AdaptiveAvgPool2d(7)(images))


def test_pixels_are_normalized_as_the_family_expects() -> None:
    for family in ("mobilenet_v1", "googlenet"):
        norm = default_preprocessing(family)
        assert [(pixel - norm.mean[0]) / norm.std[0] for pixel in (0, 0.5, 1)] == [-1, 0, 1]
    assert default_preprocessing("vgg16").mean == (0.485, 0.456, 0.406)


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is None, reason="torchvision is not installed")
@pytest.mark.parametrize("family", ["vgg16", "googlenet"])
def test_a_torchvision_checkpoint_gives_the_logits_of_torchvision(family: str) -> None:
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for name in ("nms", "qnms"):  # torchvision's wheel expects these operators, which only a CUDA build defines
        library.define(f"{name}(Tensor boxes, Tensor scores, float threshold) -> Tensor")  # type: ignore[no-untyped-call]
    from torchvision import models

    oracle = models.vgg16() if family == "vgg16" else models.googlenet(weights=None, init_weights=False)
    module = build(ModelSpec(family=family))  # type: ignore[arg-type]
    load_parameters(module, oracle.state_dict(), "torchvision")
    oracle.eval()
    for resolution in (64, 128, 224):
        images = random_images(ModelSpec(resolution=resolution), batch=2)
        with torch.inference_mode():
            expected = oracle(images)
            torch.testing.assert_close(module(images), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
