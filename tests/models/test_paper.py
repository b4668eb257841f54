import pytest

from mbbench.models import build, googlenet, paper
from mbbench.models.cost import cost_of, count
from mbbench.spec import ModelSpec

BUILT = [row for row in paper.ROWS if row.spec is not None]


@pytest.mark.parametrize("row", BUILT, ids=lambda row: row.name)
def test_counts_agree_with_the_paper_or_have_a_reason(row: paper.PublishedRow) -> None:
    assert row.spec is not None
    disagreeing = [c.what for c in paper.compare(row.spec, cost_of(row.spec)) if not c.agrees]
    known = {
        "Conv MobileNet": ["Mult-Adds"],
        "GoogleNet": ["Mult-Adds", "parameters"],
        "VGG 16": ["Mult-Adds"],
    }
    assert disagreeing == known.get(row.name, [])
    reasons = [c.reason for c in paper.compare(row.spec, cost_of(row.spec)) if not c.agrees]
    assert all(reason and reason != "unexplained" for reason in reasons)


def test_counts_agree_with_table_2_except_one_figure() -> None:
    comparisons = paper.compare_layer_types(cost_of(ModelSpec()))
    assert len(comparisons) == 8
    assert [(c.name, c.what, c.printed, round(c.counted, 2)) for c in comparisons if not c.agrees] == [
        ("Conv 3x3", "Mult-Adds", "1.19", 1.91)
    ]


def test_the_mult_adds_in_table_4_exclude_the_classifier() -> None:
    cost = cost_of(ModelSpec(variant="full-conv"))
    assert paper.agrees_with("4866", (cost.mult_adds - cost.layers[-1].mult_adds) / 1e6)


def test_the_published_mult_adds_of_vgg16_are_those_of_its_convolutions() -> None:
    layers = cost_of(paper.VGG16).layers
    convolutions = sum(layer.mult_adds for layer in layers if layer.type != "Fully connected")
    assert round(convolutions / 1e6) == 15347
    assert round(convolutions / 1e8) == 153


def test_googlenet_with_5x5_convolutions_has_the_counts_in_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    class FiveByFive(googlenet.Inception):
        def __init__(self, *channels: int) -> None:
            super().__init__(*channels)
            reduction, outputs = channels[4:6]
            self.branch3[1] = googlenet.ConvBlock(reduction, outputs, 5)

    monkeypatch.setattr(googlenet, "Inception", FiveByFive)
    cost = count(build(paper.GOOGLENET), 224)  # not `cost_of`, which is cached
    assert (round(cost.mult_adds / 1e6), round(cost.weights / 1e6, 2)) == (1583, 6.99)


@pytest.mark.parametrize(
    ("printed", "counted", "agrees"),
    [
        ("569", 568.74, True),
        ("149", 149.497, True),
        ("76", 76.52, True),
        ("1.32", 1.3196, True),
        ("0.5", 0.4636, True),
        ("4866", 4867.29, False),
        ("149", 148.4, False),
    ],
)
def test_figures_agree_if_rounded_or_truncated(printed: str, counted: float, agrees: bool) -> None:
    assert paper.agrees_with(printed, counted) is agrees


def test_the_claims_of_the_paper_follow_from_its_table_8() -> None:
    by_name = {row.name: row for row in paper.ROWS}
    mobilenet, vgg, google = (by_name[name] for name in ("1.0 MobileNet-224", "VGG 16", "GoogleNet"))
    assert float(vgg.parameters) / float(mobilenet.parameters) > 32
    assert round(float(vgg.mult_adds) / float(mobilenet.mult_adds)) == 27
    assert float(google.mult_adds) / float(mobilenet.mult_adds) > 2.5
    assert float(google.parameters) > float(mobilenet.parameters)


def test_published_accuracy_is_of_the_released_checkpoint_or_else_of_the_paper() -> None:
    assert paper.published_top1(ModelSpec(alpha=0.5, resolution=128)) == (56.3, "released checkpoint")
    assert paper.published_top1(ModelSpec(variant="shallow")) == (65.3, "paper, Table 5")
    assert paper.published_top1(ModelSpec(family="vgg16", resolution=128)) == (71.5, "paper, Table 8")
    assert paper.published_top1(ModelSpec(alpha=0.6)) is None
    assert paper.published_top1(ModelSpec(), "int8") == (69.7, "released checkpoint, trained for 8 bits")
    assert paper.published_top1(ModelSpec(), "bf16") is None
    assert paper.published_top1(ModelSpec(), weights="timm:a.safetensors") == (75.382, "timm's checkpoint")
    assert paper.published_top1(ModelSpec(alpha=0.5), weights="timm:a.safetensors") is None
    assert paper.published_top1(ModelSpec(), weights="keras:a.h5") == (70.9, "released checkpoint")
    assert paper.row_of(ModelSpec(widths=(8,) * 14)) is None
    assert paper.published_top1(ModelSpec(widths=(8,) * 14)) is None
    assert paper.published_top1(ModelSpec(family="vgg16"), "int8") is None


def test_networks_or_classes_that_the_paper_lacks_have_no_comparison() -> None:
    assert paper.compare(ModelSpec(alpha=0.6), cost_of(ModelSpec(alpha=0.6))) == ()
    ten = ModelSpec(classes=10)
    assert paper.compare(ten, cost_of(ten)) == ()


def test_every_released_checkpoint_is_listed() -> None:
    assert set(paper.CHECKPOINTS) == {(a, r) for a in (0.25, 0.5, 0.75, 1.0) for r in (128, 160, 192, 224)}
    assert all(top1 < top5 for top1, top5 in paper.CHECKPOINTS.values())
