from collections.abc import Callable
from dataclasses import replace

import pytest

from mbbench.report.sections import claims
from mbbench.report.sections.claims import Claim
from mbbench.result import Result
from mbbench.spec import ModelSpec

Make = Callable[..., Result]


def test_what_is_counted_holds() -> None:
    assert claims.claims([]) == [
        Claim("so many times smaller than VGG16", "32x", "32.7x", "holds"),
        Claim("so many times less compute than VGG16", "27x", "27.2x", "holds"),
        Claim("so many times smaller than GoogLeNet", ">1x", "1.57x", "holds"),
        Claim("so many times less compute than GoogLeNet", ">2.5x", "2.63x", "holds"),
        Claim(
            "nearly as accurate as VGG16 (top-1)",
            "70.6 % and 71.5 %",
            "needs both networks' weights and ImageNet's labels",
            "cannot be judged",
        ),
    ]


@pytest.mark.parametrize(
    ("printed", "other", "verdict"),
    [("32x", 3200, "holds"), ("32x", 3199, "does not hold"), (">2.5x", 250, "does not hold"), (">2.5x", 251, "holds")],
)
def test_at_least_and_more_than(printed: str, other: int, verdict: str) -> None:
    assert claims._ratio("", printed, other, 100).verdict == verdict


@pytest.mark.parametrize(("own", "verdict"), [(0.706, "holds"), (0.69, "does not hold")])
def test_accuracy_is_judged_where_both_were_measured_on_the_same_labels(
    make_result: Make, own: float, verdict: str
) -> None:
    def measured(model: ModelSpec, top1: float) -> Result:
        result = make_result(model)
        assert result.measured.accuracy is not None and result.data is not None
        accuracy = replace(result.measured.accuracy, top1=top1)
        data = replace(result.data, name="imagenet", classes=1000)
        return replace(result, data=data, measured=replace(result.measured, accuracy=accuracy))

    pair = [measured(ModelSpec(), own), measured(ModelSpec(family="vgg16"), 0.715)]
    assert claims.claims(pair)[-1].verdict == verdict
    others = [pair[0], replace(pair[1], data=replace(pair[1].data, fingerprint="other"))]  # type: ignore[type-var]
    assert claims.claims(others)[-1].verdict == "cannot be judged"
