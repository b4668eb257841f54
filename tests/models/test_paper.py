import pytest

from mbbench.models import paper
from mbbench.models.cost import cost_of
from mbbench.spec import ModelSpec


@pytest.mark.parametrize("row", (*paper.ROWS, *paper.DOGS), ids=lambda row: row.name)
def test_counts_agree_with_the_paper_or_have_a_reason(row: paper.PublishedRow) -> None:
    disagreeing = [c.what for c in paper.compare(row.spec, cost_of(row.spec)) if not c.agrees]
    known = {
        "Conv MobileNet": ["Mult-Adds"],
        "GoogleNet": ["Mult-Adds", "parameters"],
        "VGG 16": ["Mult-Adds"],
        "Squeezenet": ["Mult-Adds", "parameters"],
        "AlexNet": ["Mult-Adds"],
        "Inception V3, Dogs": ["Mult-Adds", "parameters"],
        "1.0 MobileNet-224, Dogs": ["Mult-Adds"],
        "1.0 MobileNet-192, Dogs": ["Mult-Adds"],
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


def test_googlenet_with_5x5_convolutions_has_the_counts_in_the_reason() -> None:
    cost = cost_of(ModelSpec("googlenet", variant="5x5"))
    assert (round(cost.mult_adds / 1e6), round(cost.weights / 1e6, 2)) == (1583, 6.99)


def test_the_layer_of_table_3_has_the_printed_counts() -> None:
    comparisons = paper.compare_layers()
    assert all(comparison.agrees for comparison in comparisons)
    assert [round(comparison.counted, 3) for comparison in comparisons] == [
        462.422, 2.359, 52.283, 0.267, 29.579, 0.151, 15.091, 0.151,
    ]  # fmt: skip


def test_squeezenet_computes_10_7_times_what_the_smaller_mobilenet_does() -> None:
    squeezenet, mobilenet = (row.spec for row in paper.ROWS if row.name in ("Squeezenet", "0.50 MobileNet-160"))
    if squeezenet.family == "mobilenet_v1":
        squeezenet, mobilenet = mobilenet, squeezenet
    assert round(cost_of(squeezenet).mult_adds / cost_of(mobilenet).mult_adds, 1) == 10.7
    assert cost_of(squeezenet).parameters == 1_248_424  # 1.25 M, with biases


def test_the_counts_of_table_10_and_those_in_its_reasons() -> None:
    counted = [(round(cost.mult_adds / 1e6, 1), round(cost.weights / 1e6, 3))
               for cost in (cost_of(row.spec) for row in paper.DOGS)]  # fmt: skip
    assert counted == [(5711.4, 21.997), (567.8, 3.308), (324.7, 1.892), (417.2, 3.308), (238.6, 1.892)]
    inception = cost_of(ModelSpec("inception_v3", resolution=299))
    classifier = inception.layers[-1]
    assert round(inception.weights / 1e6, 2) == 23.80
    assert round((inception.weights - classifier.weights) / 1e6, 2) == 21.75
    for resolution, mult_adds in ((224, 568.7), (192, 418.1)):
        assert round(cost_of(ModelSpec(resolution=resolution)).mult_adds / 1e6, 1) == mult_adds


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
    assert paper.published_top1(ModelSpec("googlenet", variant="5x5")) == (69.8, "paper, Table 8")
    assert paper.published_top1(ModelSpec("alexnet", variant="grouped", resolution=128)) == (57.2, "paper, Table 9")
    assert paper.published_top1(ModelSpec("squeezenet1_0")) == (57.5, "paper, Table 9")
    assert paper.published_top1(ModelSpec("alexnet")) is None  # torchvision's network is another one
    assert paper.published_top1(ModelSpec("inception_v3", resolution=299, classes=120)) is None  # Dogs, not ImageNet
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
    assert paper.printed_row(ModelSpec(classes=120)) is paper.DOGS[1]
    assert paper.printed_row(ModelSpec()) is paper.row_of(ModelSpec())


def test_every_released_checkpoint_is_listed() -> None:
    assert set(paper.CHECKPOINTS) == {(a, r) for a in (0.25, 0.5, 0.75, 1.0) for r in (128, 160, 192, 224)}
    assert all(top1 < top5 for top1, top5 in paper.CHECKPOINTS.values())
