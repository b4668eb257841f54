import pytest
import torch
from torch import nn

from mbbench.models import build, fold_batch_norm
from mbbench.models.cost import Layer, cost_of
from mbbench.spec import ModelSpec

from .counting import count

# Alpha -> resolution -> Mult-Adds in units of 10,000.
MULT_ADDS = {
    1.0: {224: 56874, 192: 41812, 160: 29068, 128: 18640},
    0.75: {224: 32540, 192: 23927, 160: 16640, 128: 10677},
    0.5: {224: 14950, 192: 10997, 160: 7652, 128: 4916},
    0.25: {224: 4103, 192: 3021, 160: 2106, 128: 1357},
}


@pytest.mark.parametrize("alpha", MULT_ADDS)
def test_mult_adds_at_every_width_and_resolution(alpha: float) -> None:
    counted = {r: round(cost_of(ModelSpec(alpha=alpha, resolution=r)).mult_adds / 1e4) for r in MULT_ADDS[alpha]}
    assert counted == MULT_ADDS[alpha]


def test_mult_adds_of_the_variants_and_the_other_families() -> None:
    counted = {
        ModelSpec(variant="full-conv"): 4_867_293_184,
        ModelSpec(variant="shallow"): 307_323_392,
        ModelSpec("vgg16"): 15_470_264_320,
        ModelSpec("googlenet"): 1_498_376_192,
        ModelSpec("googlenet", variant="5x5"): 1_582_671_872,
        ModelSpec("mobilenet_v2"): 300_774_272,
        ModelSpec("squeezenet1_0"): 818_924_576,
        ModelSpec("squeezenet1_1"): 349_151_936,
        ModelSpec("alexnet"): 714_188_480,
        ModelSpec("alexnet", variant="grouped"): 724_406_816,
        ModelSpec("inception_v3", resolution=299): 5_713_216_096,
        ModelSpec("xception", resolution=299): 8_357_403_496,
        ModelSpec("xception"): 4_552_879_072,
        ModelSpec("xception", resolution=160): 2_315_464_160,
        ModelSpec("xception", resolution=128): 1_477_953_952,
    }
    assert {spec: cost_of(spec).mult_adds for spec in counted} == counted


def test_shares_by_layer_type_equal_table_2_except_one() -> None:
    shares = [(s.type, f"{s.mult_adds_share:.2%}", f"{s.weights_share:.2%}") for s in cost_of(ModelSpec()).by_type()]
    assert shares == [
        ("Conv 1x1", "94.86%", "74.59%"),
        ("Conv DW 3x3", "3.06%", "1.06%"),
        ("Conv 3x3", "1.91%", "0.02%"),
        ("Fully connected", "0.18%", "24.33%"),
    ]


def test_each_layer_is_counted() -> None:
    layers = cost_of(ModelSpec(alpha=0.5, resolution=128, classes=10)).layers
    assert len(layers) == 28
    stem, depthwise = 64 * 64 * 27 * 16, 64 * 64 * 9 * 16
    inputs = (3 * 128 * 128, 16 * 64 * 64, 512)
    assert layers[0] == Layer("stem.conv", "Conv 3x3", (16, 64, 64), stem, 27 * 16, 27 * 16 + 32, inputs[0])
    assert layers[1] == Layer("blocks.0.0.conv", "Conv DW 3x3", (16, 64, 64), depthwise, 9 * 16, 9 * 16 + 32, inputs[1])
    assert layers[-1] == Layer("classifier", "Fully connected", (10,), 5120, 5120, 5130, inputs[2])


def test_weights_exclude_biases_and_batch_norm() -> None:
    cost = cost_of(ModelSpec())
    assert (cost.weights, cost.parameters, cost.weight_bytes) == (4_209_088, 4_231_976, 4 * 4_231_976)
    others = {
        family: (cost_of(ModelSpec(family)).weights, cost_of(ModelSpec(family)).parameters)
        for family in ("mobilenet_v2", "squeezenet1_0", "inception_v3", "xception")
    }
    assert others == {
        "mobilenet_v2": (3_469_760, 3_504_872),
        "squeezenet1_0": (1_244_448, 1_248_424),
        "inception_v3": (23_799_136, 23_834_568),
        "xception": (22_800_424, 22_855_952),
    }


def test_batch_norm_counts_toward_its_convolution() -> None:
    """Whatever the layers are called: `conv` and `bn`, neighbors in a sequence, after a separable convolution."""
    v2 = {layer.name: layer for layer in cost_of(ModelSpec("mobilenet_v2")).layers}
    assert [v2[f"features.2.conv.{name}"].parameters for name in ("0.0", "1.0", "2")] == [
        16 * 96 + 2 * 96, 9 * 96 + 2 * 96, 96 * 24 + 2 * 24,
    ]  # fmt: skip
    xception = {layer.name: layer for layer in cost_of(ModelSpec("xception")).layers}
    assert xception["block2.skip"].parameters == 128 * 256 + 2 * 256
    assert xception["block2.rep.1.conv1"].parameters == 9 * 128
    assert xception["block2.rep.1.pointwise"].parameters == 128 * 256 + 2 * 256


def test_folding_batch_norm_does_not_change_mult_adds() -> None:
    spec = ModelSpec(alpha=0.25, resolution=64)
    assert count(fold_batch_norm(build(spec)), 64).mult_adds == cost_of(spec).mult_adds


def test_the_activation_peak_of_a_chain_is_its_largest_layer() -> None:
    """In VGG16, that is the second convolution: it reads and writes 64 x 224 x 224."""
    assert cost_of(ModelSpec(family="vgg16")).activation_peak_bytes == 2 * 64 * 224 * 224 * 4


def test_the_activation_peak_of_branches_includes_outputs_that_are_read_later() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 5, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([self.a(x), self.b(x)], 1)

    # While the second branch runs, the image (3) and the outputs of both branches (4 and 5) are alive, 12 in all. The
    # concatenation reads 9 and writes 9, which is more.
    assert count(Branches(), 8).activation_peak_bytes == (4 + 5 + 9) * 8 * 8 * 4


def test_counting_does_not_change_the_module() -> None:
    module = build(ModelSpec(alpha=0.25, resolution=32))
    count(module, 32)
    assert next(module.parameters()).device.type == "cpu"
    assert not any(layer._forward_hooks for layer in module.modules())


@pytest.mark.parametrize(
    "spec",
    [
        *(ModelSpec(alpha=alpha, resolution=resolution)
          for alpha in (0.25, 0.4, 1.0) for resolution in (33, 96)),
        ModelSpec(alpha=0.25, resolution=65, padding="keras"),
        ModelSpec(alpha=0.5, resolution=64, padding="keras"),
        ModelSpec(alpha=0.25, resolution=64, variant="full-conv"),
        ModelSpec(alpha=0.25, resolution=64, variant="shallow"),
        ModelSpec(resolution=64, classes=5, widths=(5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31)),
        *(ModelSpec("mobilenet_v2", alpha=alpha, resolution=96) for alpha in (0.35, 1.0, 1.4)),
        *(ModelSpec("vgg16", resolution=resolution, classes=10) for resolution in (32, 128, 224)),
        *(ModelSpec("alexnet", resolution=resolution, variant=variant)
          for resolution in (63, 224) for variant in ("standard", "grouped")),
        *(ModelSpec("googlenet", resolution=resolution, variant=variant)
          for resolution in (32, 101, 224) for variant in ("standard", "5x5")),
        *(ModelSpec(f"squeezenet1_{minor}", resolution=resolution) for minor in (0, 1) for resolution in (32, 97, 224)),
        *(ModelSpec("inception_v3", resolution=resolution) for resolution in (75, 299)),
        *(ModelSpec("xception", resolution=resolution, padding=padding)
          for resolution in (64, 97, 299) for padding in ("symmetric", "keras")),
    ],
    ids=str,
)  # fmt: skip
def test_the_tables_count_what_pytorch_runs(spec: ModelSpec) -> None:
    with torch.device("meta"):
        counted = count(build(spec), spec.resolution)
    cost = cost_of(spec)
    assert sorted(cost.layers, key=lambda layer: layer.name) == sorted(counted.layers, key=lambda layer: layer.name)
    assert cost.activation_peak_bytes == counted.activation_peak_bytes
