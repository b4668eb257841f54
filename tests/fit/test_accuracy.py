"""Top-1 between networks of known accuracy."""

import math

import pytest

from mbbench.fit.accuracy import Top1, measured, published
from mbbench.models import paper
from mbbench.spec import ModelSpec


def test_the_released_checkpoints_have_their_published_top1() -> None:
    models = [ModelSpec(alpha=alpha, resolution=side) for alpha, side in paper.CHECKPOINTS]
    expected = [top1 / 100 for top1, _ in paper.CHECKPOINTS.values()]
    found = published(models, "fp32")
    assert [None if top1 is None else top1.share for top1 in found] == pytest.approx(expected)
    assert {top1.source for top1 in found if top1 is not None} == {"published"}
    (int8,) = published([ModelSpec(alpha=0.5, resolution=160)], "int8")
    assert int8 is not None and int8.source == "published"
    assert int8.share == pytest.approx(0.577)


def test_between_checkpoints_top1_is_linear_in_the_logarithms() -> None:
    """Halfway from 0.5 to 0.75 in the logarithm is 0.612, not 0.625."""
    (between,) = published([ModelSpec(alpha=math.sqrt(0.5 * 0.75), resolution=224)], "fp32")
    assert between is not None and between.source == "interpolated"
    assert between.share == pytest.approx((0.633 + 0.684) / 2)


def test_beyond_the_checkpoints_top1_is_extrapolated_and_says_so() -> None:
    (narrow,) = published([ModelSpec(alpha=0.125, resolution=224)], "fp32")
    assert narrow is not None and narrow.source == "extrapolated"
    assert narrow.share == pytest.approx(2 * 0.498 - 0.633)
    (tiny,) = published([ModelSpec(alpha=0.03125, resolution=32)], "fp32")
    assert tiny == Top1(0.0, "extrapolated")
    assert published([ModelSpec()], "bf16") == [None]


def test_measured_top1_is_kept_and_others_lie_on_a_plane() -> None:
    models = [ModelSpec(alpha=alpha, resolution=side) for alpha in (0.25, 0.5, 1.0) for side in (64, 128)]
    truth = [0.6 + 0.05 * math.log2(m.alpha * 4) + 0.1 * math.log2(m.resolution / 64) for m in models]
    known = dict(zip(models, truth, strict=True))
    del known[models[3]]
    found = measured(models, known)
    assert [None if top1 is None else top1.share for top1 in found] == pytest.approx(truth)
    assert [top1.source for top1 in found if top1] == [*["measured"] * 3, "interpolated", *["measured"] * 2]


def test_two_measured_accuracies_say_nothing_about_others() -> None:
    models = [ModelSpec(alpha=alpha, resolution=64) for alpha in (0.25, 0.5, 1.0)]
    assert measured(models, {models[0]: 0.5, models[2]: 0.7}) == [Top1(0.5, "measured"), None, Top1(0.7, "measured")]
