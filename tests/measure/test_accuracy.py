from collections.abc import Callable, Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from mbbench.backend import Session
from mbbench.errors import RequirementError
from mbbench.measure.accuracy import (
    Answers,
    accuracy_figures,
    check_parity,
    collect_answers,
    is_constant,
    join_answers,
    require_parity,
    top1_drop,
)
from mbbench.result import Parity
from mbbench.spec import Preprocessing

IDENTITY = Preprocessing(mean=(0.0, 0.0, 0.0), std=(1 / 255, 1 / 255, 1 / 255))  # does not change the pixels
Floats = NDArray[np.float32]


class ScriptedSession(Session):
    """A session whose logits are a function of each image's first pixel."""

    facts: Mapping[str, str] = {}

    def __init__(self, logits_of_pixels: Callable[[Floats], Floats]) -> None:
        self.logits_of_pixels = logits_of_pixels
        self.batches: list[int] = []

    def run(self, images: Floats) -> Floats:
        self.batches.append(len(images))
        return self.logits_of_pixels(images[:, 0, 0, 0])


def images_with(values: list[int]) -> NDArray[np.uint8]:
    images = np.zeros((len(values), 4, 4, 3), np.uint8)
    images[:, 0, 0, 0] = values
    return images


def one_hot(values: Floats) -> Floats:
    logits: Floats = np.eye(10, dtype=np.float32)[np.round(values).astype(int)]
    return logits


def test_top1_agreement_and_logit_errors_are_counted() -> None:
    labels = np.array([0, 1, 2, 3, 9], np.int64)
    reference = one_hot(np.array([0, 1, 2, 4, 4], np.float32))
    session = ScriptedSession(lambda values: one_hot(values) * 10)
    accuracy, reasons = accuracy_figures(
        collect_answers(session, images_with([0, 1, 5, 4, 9]), labels, reference, IDENTITY, batch=2)
    )
    assert session.batches == [2, 2, 2]
    assert (accuracy.images, accuracy.top1, accuracy.agreement) == (5, 0.6, 0.6)
    assert accuracy.max_abs_logit_error == 10.0
    # Of 50 logits, the 3 agreeing images have one that is off by 9, the 2 others one off by 10 and one off by 1.
    assert accuracy.mean_abs_logit_error == pytest.approx((3 * 9 + 2 * 11) / 50)
    assert accuracy.top1_ci95 is not None
    assert reasons == {}


def test_padding_of_the_last_batch_is_not_counted() -> None:
    reference = one_hot(np.array([7, 7, 7], np.float32))
    session, labels = ScriptedSession(one_hot), np.array([7, 7, 7])
    accuracy, _ = accuracy_figures(
        collect_answers(session, images_with([7, 7, 7]), labels, reference, IDENTITY, batch=16)
    )
    assert (accuracy.images, accuracy.top1, accuracy.agreement) == (3, 1.0, 1.0)


def test_top5_uses_the_five_largest_logits() -> None:
    logits = np.arange(10, dtype=np.float32)
    session = ScriptedSession(lambda values: np.tile(logits, (len(values), 1)))
    reference = np.tile(logits, (10, 1))
    accuracy, _ = accuracy_figures(
        collect_answers(session, images_with([0] * 10), np.arange(10), reference, IDENTITY, batch=5)
    )
    assert (accuracy.top1, accuracy.top5) == (0.1, 0.5)


@pytest.mark.parametrize("labeled", [True, False])
def test_joined_answers_of_shards_equal_the_answers_to_all_images(labeled: bool) -> None:
    rng = np.random.default_rng(5)
    values = rng.integers(0, 10, 45)
    labels = rng.integers(0, 10, 45) if labeled else None
    reference = rng.normal(size=(45, 10)).astype(np.float32)
    weights = rng.normal(size=(10, 10)).astype(np.float32)

    reason_without_top1 = None if labeled else "random weights"

    def answers(rows: slice) -> Answers:
        shard_labels = None if labels is None else labels[rows]
        session = ScriptedSession(lambda pixels: one_hot(pixels) @ weights)
        return collect_answers(
            session, images_with(values.tolist())[rows], shard_labels, reference[rows], IDENTITY, 4, reason_without_top1
        )

    joined = join_answers([answers(slice(0, 16)), answers(slice(16, 40)), answers(slice(40, 45))])
    assert joined == answers(slice(0, 45))
    assert accuracy_figures(joined) == accuracy_figures(answers(slice(0, 45)))


def test_without_labels_agreement_is_measured_but_not_accuracy() -> None:
    reference = one_hot(np.array([1, 2], np.float32))
    answers = collect_answers(
        ScriptedSession(one_hot), images_with([1, 2]), None, reference, IDENTITY, 2, "random weights"
    )
    accuracy, reasons = accuracy_figures(answers)
    assert (accuracy.top1, accuracy.top1_ci95, accuracy.top5, accuracy.agreement) == (None, None, None, 1.0)
    assert reasons == {"accuracy.top1": "random weights", "accuracy.top5": "random weights"}


def test_parity_tolerates_a_thousandth_of_the_largest_logit() -> None:
    images = images_with([1, 2, 3])
    reference = one_hot(np.array([1, 2, 3], np.float32)) * 2
    for error, passed in ((0.0019, True), (0.0021, False)):
        session = ScriptedSession(lambda v, error=error: one_hot(v) * 2 + np.float32(error))  # type: ignore[misc]
        parity = check_parity(session, images, reference, IDENTITY, batch=1)
        assert parity.passed is passed
        assert parity.tolerance == pytest.approx(0.002)
        assert parity.max_abs_error == pytest.approx(error, rel=1e-3)


@pytest.mark.parametrize(
    ("logits_of_pixels", "cause"),
    [
        (lambda v: one_hot(v) * np.float32("nan"), "the session's outputs are not finite or have the wrong shape"),
        (lambda v: one_hot(v)[:, :3], "the session's outputs are not finite or have the wrong shape"),
        (lambda v: one_hot(v) + 1, "the session's logits differ from PyTorch's by up to 1 (allowed 0.001)"),
    ],
)
def test_wrong_outputs_raise_an_error_with_the_cause(logits_of_pixels: Callable[[Floats], Floats], cause: str) -> None:
    reference = one_hot(np.array([1, 2], np.float32))
    parity = check_parity(ScriptedSession(logits_of_pixels), images_with([1, 2]), reference, IDENTITY, batch=2)
    with pytest.raises(RequirementError) as caught:
        require_parity(parity)
    assert caught.value.cause == cause
    assert caught.value.exit_code == 5


def test_constant_outputs_fail_even_if_the_reference_is_constant() -> None:
    constant = np.ones((2, 10), np.float32)
    parity = check_parity(
        ScriptedSession(lambda v: constant[: len(v)]), images_with([1, 2]), constant, IDENTITY, batch=1
    )
    assert parity.max_abs_error == 0.0
    with pytest.raises(RequirementError, match="the same for every image"):
        require_parity(parity)


def test_logits_of_a_single_image_are_not_constant() -> None:
    assert not is_constant(np.ones((1, 10), np.float32))


def test_passing_parity_raises_nothing() -> None:
    require_parity(Parity(images=2, max_abs_error=0.0, tolerance=1e-3, passed=True))


def test_the_drop_counts_images_that_only_one_side_classifies_correctly() -> None:
    labels = np.array([0, 0, 1, 1, 2, 2, 2, 2])
    reference = np.array([0, 0, 1, 1, 2, 2, 2, 0])
    predictions = np.array([0, 1, 1, 1, 2, 0, 1, 2])
    drop = top1_drop(reference, predictions, labels)
    assert (drop.share, drop.only_reference_right, drop.only_this_right) == (2 / 8, 3, 1)
    assert drop.by_class == (0.5, 0.0, 0.25)
    assert (drop.worst_class, drop.worst_class_share) == (0, 0.5)
    assert drop.p_value == pytest.approx(0.625)
    assert drop.ci95.low < 0.25 < drop.ci95.high
