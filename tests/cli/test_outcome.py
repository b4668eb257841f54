"""The judgement on what compression did to top-1."""

from typing import Any

import numpy as np
import pytest

from mbbench import weights
from mbbench.cli.outcome import Outcome
from mbbench.compress.pipeline import Request
from mbbench.errors import RequirementError
from mbbench.spec import ModelSpec
from mbbench.weights.recipe import FineTuning


def request(**stages: Any) -> Request:
    recipe = FineTuning(min_steps=0)
    return Request(**stages, recipe=recipe, qat_recipe=recipe)


def test_an_outcome_counts_on_which_images_the_answers_differ() -> None:
    before, after = np.array([True, True, True, False, False]), np.array([True, False, False, True, False])
    outcome = Outcome.of(before, after)
    assert outcome == Outcome(images=5, before=3, after=2, only_before=2, only_after=1)
    assert outcome.change == pytest.approx(-0.2)


def test_the_line_shows_top1_and_the_change_with_their_intervals() -> None:
    assert Outcome(images=40, before=21, after=11, only_before=12, only_after=2).describe() == (
        "top-1 52.5 % [37.5, 67.1] -> 27.5 % [16.1, 42.8], -25.0 points [-41.0, -6.6]"
    )


@pytest.mark.parametrize(
    ("images", "only_before", "only_after", "worse"),
    [
        (40, 12, 2, True),
        (40, 4, 1, False),  # 7.5 points, within the interval
        (40, 2, 12, False),  # better
        (10_000, 190, 100, False),  # 0.9 points, beyond the interval
        (10_000, 210, 100, True),  # 1.1 points
    ],
)
def test_worse_is_more_than_a_point_and_more_than_the_interval(
    images: int, only_before: int, only_after: int, worse: bool
) -> None:
    outcome = Outcome(images, images // 2, images // 2 + only_after - only_before, only_before, only_after)
    assert outcome.is_worse == worse
    if not worse:
        outcome.require_no_loss(request(qat=True))
        return
    with pytest.raises(RequirementError) as caught:
        outcome.require_no_loss(request(qat=True))
    assert caught.value.exit_code == 5


def test_the_remedy_names_what_was_asked_for() -> None:
    outcome = Outcome(images=40, before=21, after=11, only_before=12, only_after=2)
    teacher = weights.random(ModelSpec(alpha=0.25, resolution=32, classes=2))
    for stages, remedy in (
        ({"mult_adds": 0.5}, "give more images, a lower --prune, or more --epochs"),
        (
            {"max_latency_ms": 2.0, "teacher": teacher},
            "give more images, a higher --max-latency, a better --teacher, or more --epochs",
        ),
        ({"qat": True}, "give more images, or leave out --qat"),
        (
            {"mult_adds": 0.5, "qat": True},
            "give more images, a lower --prune, more --epochs, or leave out --qat",
        ),
    ):
        with pytest.raises(RequirementError) as caught:
            outcome.require_no_loss(request(**stages))
        assert str(caught.value) == (f"top-1 is worse than before compression: -25.0 points [-41.0, -6.6]; {remedy}")
