from collections.abc import Callable, Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from mbbench.backend import Session
from mbbench.errors import RequirementError
from mbbench.measure.accuracy import (
    Answers,
    answers_of,
    check_parity,
    drop,
    is_constant,
    join,
    require_parity,
    summarize,
)
from mbbench.models import Normalization
from mbbench.result import Parity

PLAIN = Normalization((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))  # leaves pixels as they are
Floats = NDArray[np.float32]


class Scripted(Session):
    """Logits are a function of the images' first pixel."""

    facts: Mapping[str, str] = {}

    def __init__(self, answer: Callable[[Floats], Floats]) -> None:
        self.answer = answer
        self.batches: list[int] = []

    def run(self, images: Floats) -> Floats:
        self.batches.append(len(images))
        return self.answer(images[:, 0, 0, 0])


def images_of(values: list[int]) -> NDArray[np.uint8]:
    images = np.zeros((len(values), 4, 4, 3), np.uint8)
    images[:, 0, 0, 0] = values
    return images


def one_hot(values: Floats) -> Floats:
    logits: Floats = np.eye(10, dtype=np.float32)[np.round(values).astype(int)]
    return logits


def test_evaluation_counts_top1_top5_and_agreement() -> None:
    labels = np.array([0, 1, 2, 3, 9], np.int64)
    reference = one_hot(np.array([0, 1, 2, 4, 4], np.float32))
    session = Scripted(lambda values: one_hot(values) * 10)
    accuracy, reasons = summarize(answers_of(session, images_of([0, 1, 5, 4, 9]), labels, reference, PLAIN, batch=2))
    assert session.batches == [2, 2, 2]
    assert (accuracy.images, accuracy.top1, accuracy.agreement) == (5, 0.6, 0.6)
    assert accuracy.max_abs_logit_error == 10.0
    # Right: 9 off on the diagonal, three times; wrong: 10 and 1 off, twice; of 50 logits.
    assert accuracy.mean_abs_logit_error == pytest.approx((3 * 9 + 2 * 11) / 50)
    assert accuracy.top1_ci95 is not None
    assert reasons == {}


def test_the_filling_of_the_last_batch_is_not_counted() -> None:
    reference = one_hot(np.array([7, 7, 7], np.float32))
    session, labels = Scripted(one_hot), np.array([7, 7, 7])
    accuracy, _ = summarize(answers_of(session, images_of([7, 7, 7]), labels, reference, PLAIN, batch=16))
    assert (accuracy.images, accuracy.top1, accuracy.agreement) == (3, 1.0, 1.0)


def test_top5_is_the_five_largest() -> None:
    logits = np.arange(10, dtype=np.float32)
    session = Scripted(lambda values: np.tile(logits, (len(values), 1)))
    reference = np.tile(logits, (10, 1))
    accuracy, _ = summarize(answers_of(session, images_of([0] * 10), np.arange(10), reference, PLAIN, batch=5))
    assert (accuracy.top1, accuracy.top5) == (0.1, 0.5)


@pytest.mark.parametrize("labelled", [True, False])
def test_answers_to_shards_join_to_those_to_all_images(labelled: bool) -> None:
    chance = np.random.default_rng(5)
    values = chance.integers(0, 10, 45)
    labels = chance.integers(0, 10, 45) if labelled else None
    reference = chance.normal(size=(45, 10)).astype(np.float32)
    weights = chance.normal(size=(10, 10)).astype(np.float32)

    reason_without_top1 = None if labelled else "random weights"

    def answers(rows: slice) -> Answers:
        own = None if labels is None else labels[rows]
        session = Scripted(lambda found: one_hot(found) @ weights)
        return answers_of(
            session, images_of(values.tolist())[rows], own, reference[rows], PLAIN, 4, reason_without_top1
        )

    joined = join([answers(slice(0, 16)), answers(slice(16, 40)), answers(slice(40, 45))])
    assert joined == answers(slice(0, 45))
    assert summarize(joined) == summarize(answers(slice(0, 45)))


def test_without_labels_there_is_agreement_but_no_accuracy() -> None:
    reference = one_hot(np.array([1, 2], np.float32))
    answers = answers_of(Scripted(one_hot), images_of([1, 2]), None, reference, PLAIN, 2, "random weights")
    accuracy, reasons = summarize(answers)
    assert (accuracy.top1, accuracy.top1_ci95, accuracy.top5, accuracy.agreement) == (None, None, None, 1.0)
    assert reasons == {"accuracy.top1": "random weights", "accuracy.top5": "random weights"}


def test_parity_holds_within_a_thousandth_of_the_largest_logit() -> None:
    values = images_of([1, 2, 3])
    reference = one_hot(np.array([1, 2, 3], np.float32)) * 2
    for error, passed in ((0.0019, True), (0.0021, False)):
        session = Scripted(lambda v, error=error: one_hot(v) * 2 + np.float32(error))  # type: ignore[misc]
        parity = check_parity(session, values, reference, PLAIN, batch=1)
        assert parity.passed is passed
        assert parity.tolerance == pytest.approx(0.002)
        assert parity.max_abs_error == pytest.approx(error, rel=1e-3)


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (lambda v: one_hot(v) * np.float32("nan"), "the session's outputs are not finite, or of the wrong shape"),
        (lambda v: one_hot(v)[:, :3], "the session's outputs are not finite, or of the wrong shape"),
        (lambda v: one_hot(v) + 1, "the session's logits differ from PyTorch's by up to 1 (allowed 0.001)"),
    ],
)
def test_wrong_outputs_are_refused_with_the_reason(answer: Callable[[Floats], Floats], cause: str) -> None:
    reference = one_hot(np.array([1, 2], np.float32))
    parity = check_parity(Scripted(answer), images_of([1, 2]), reference, PLAIN, batch=2)
    with pytest.raises(RequirementError) as caught:
        require_parity(parity)
    assert caught.value.cause == cause
    assert caught.value.exit_code == 5


def test_constant_outputs_fail_even_where_the_reference_is_constant_too() -> None:
    constant = np.ones((2, 10), np.float32)
    parity = check_parity(Scripted(lambda v: constant[: len(v)]), images_of([1, 2]), constant, PLAIN, batch=1)
    assert parity.max_abs_error == 0.0
    with pytest.raises(RequirementError, match="the same for every image"):
        require_parity(parity)


def test_one_image_alone_is_not_constant() -> None:
    assert not is_constant(np.ones((1, 10), np.float32))


def test_passing_parity_raises_nothing() -> None:
    require_parity(Parity(images=2, max_abs_error=0.0, tolerance=1e-3, passed=True))


def test_the_drop_counts_what_one_alone_got_right() -> None:
    labels = np.array([0, 0, 1, 1, 2, 2, 2, 2])
    reference = np.array([0, 0, 1, 1, 2, 2, 2, 0])
    answers = np.array([0, 1, 1, 1, 2, 0, 1, 2])
    found = drop(reference, answers, labels)
    assert (found.share, found.only_reference_right, found.only_this_right) == (2 / 8, 3, 1)
    assert found.by_class == (0.5, 0.0, 0.25)
    assert (found.worst_class, found.worst_class_share) == (0, 0.5)
    assert found.p_value == pytest.approx(0.625)
    assert found.ci95.low < 0.25 < found.ci95.high
