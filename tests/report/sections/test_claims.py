from collections.abc import Callable
from dataclasses import replace

import pytest

from mbbench.report.sections import claims
from mbbench.report.sections.claims import Claim
from mbbench.result import Result
from mbbench.spec import ModelSpec

Make = Callable[..., Result]


def test_every_claim_about_counted_figures_holds() -> None:
    assert claims.judge([]) == [
        Claim("times fewer parameters than VGG16", "32x", "32.7x", "holds"),
        Claim("times fewer Mult-Adds than VGG16", "27x", "27.2x", "holds"),
        Claim("times fewer parameters than GoogLeNet", ">1x", "1.57x", "holds"),
        Claim("times fewer Mult-Adds than GoogLeNet", ">2.5x", "2.63x", "holds"),
        Claim(
            "nearly as accurate as VGG16 (top-1)",
            "70.6 % and 71.5 %",
            "needs both networks' weights and ImageNet's labels",
            "cannot be checked",
        ),
    ]


@pytest.mark.parametrize(
    ("printed", "count", "verdict"),
    [("32x", 3200, "holds"), ("32x", 3199, "does not hold"), (">2.5x", 250, "does not hold"), (">2.5x", 251, "holds")],
)
def test_a_claim_is_at_least_its_figure_or_more_than_it(printed: str, count: int, verdict: str) -> None:
    assert claims._ratio("", printed, count, 100).verdict == verdict


@pytest.mark.parametrize(("mobilenet_top1", "verdict"), [(0.706, "holds"), (0.69, "does not hold")])
def test_accuracy_is_judged_only_if_both_networks_were_measured_on_the_same_images(
    make_result: Make, mobilenet_top1: float, verdict: str
) -> None:
    def measured(model: ModelSpec, top1: float) -> Result:
        result = make_result(model)
        assert result.measured.accuracy is not None and result.data is not None
        accuracy = replace(result.measured.accuracy, top1=top1)
        data = replace(result.data, name="imagenet", classes=1000)
        return replace(result, data=data, measured=replace(result.measured, accuracy=accuracy))

    pair = [measured(ModelSpec(), mobilenet_top1), measured(ModelSpec(family="vgg16"), 0.715)]
    assert claims.judge(pair)[-1].verdict == verdict
    other_images = [pair[0], replace(pair[1], data=replace(pair[1].data, fingerprint="other"))]  # type: ignore[type-var]
    assert claims.judge(other_images)[-1].verdict == "cannot be checked"


def test_claims_are_shown_only_where_the_papers_networks_are(make_result: Make) -> None:
    five_classes = make_result(ModelSpec(alpha=0.25, resolution=96, classes=5))
    assert not claims.concern([five_classes])
    assert claims.concern([make_result(ModelSpec(classes=10))])
    assert claims.concern([five_classes, make_result(ModelSpec(family="vgg16", classes=5), "baseline")])
    pruned = make_result(ModelSpec(widths=(8,) * 14))
    assert not claims.concern([pruned])


def test_a_shallow_or_pruned_network_is_not_the_one_of_the_claim(make_result: Make) -> None:
    vgg16 = make_result(ModelSpec(family="vgg16"))
    for model in (ModelSpec(variant="shallow"), ModelSpec(widths=(8,) * 14)):
        results = [with_labels(result) for result in (make_result(model), vgg16)]
        assert claims.judge(results)[-1].verdict == "cannot be checked"
    assert claims.judge([with_labels(r) for r in (make_result(ModelSpec()), vgg16)])[-1].verdict == "holds"


def with_labels(result: Result) -> Result:
    """The result on images of 1000 classes."""
    assert result.data is not None
    return replace(result, data=replace(result.data, classes=1000))
