"""What a session's answers are worth: parity with PyTorch before timing, accuracy over the test set after."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from math import fsum
from typing import TYPE_CHECKING

from mbbench.backend import Session
from mbbench.errors import RequirementError
from mbbench.models import Normalization
from mbbench.result import Accuracy, Drop, Parity
from mbbench.spec import Precision
from mbbench.stats import Interval, mcnemar, paired_interval, wilson_interval

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Of the largest reference logit. fp32 kernels differ by some 1e-5, a wrong layer by far more. bf16 keeps 8 bits of the
# mantissa and fp16 11, lost anew in every layer. INT8 is held against the same graph in floats: integer kernels
# differ from it where a value rounds the other way, or where they round once and it twice: by 1 to 12 %.
_TOLERANCES: dict[Precision, float] = {"fp32": 1e-3, "fp16": 1e-2, "bf16": 1e-1, "int8": 2.5e-1}
_CONSTANT = 1e-6  # spread over images, of the largest logit, under which outputs do not depend on the input


def logits_of(
    session: Session,
    images: NDArray[np.uint8],
    normalization: Normalization,
    batch: int,
    spare_cpus: Collection[int] = (),
) -> Iterator[NDArray[np.float32]]:
    """Logits of `images` (N, H, W, 3) in chunks of `batch`, which `spare_cpus` prepare meanwhile."""
    from mbbench.data.feed import batches

    for chunk, count in batches(images, normalization, batch, spare_cpus):
        yield session.run(chunk)[:count]


def check_parity(
    session: Session,
    images: NDArray[np.uint8],
    reference: NDArray[np.float32],
    normalization: Normalization,
    batch: int,
    precision: Precision = "fp32",
) -> Parity:
    """Compare the session's logits of `images` with `reference` (N, classes)."""
    import numpy as np

    logits = np.concatenate(list(logits_of(session, images, normalization, batch)))
    tolerance = _TOLERANCES[precision] * float(np.abs(reference).max())
    comparable = logits.shape == reference.shape and bool(np.isfinite(logits).all())
    error = float(np.abs(logits - reference).max()) if comparable else None
    return Parity(
        images=len(images),
        max_abs_error=error,
        tolerance=tolerance,
        passed=error is not None and error <= tolerance and not is_constant(logits),
    )


def is_constant(logits: NDArray[np.float32]) -> bool:
    """Whether different images all get the same logits (N, classes); one image alone proves nothing."""
    import numpy as np

    return len(logits) > 1 and float(np.ptp(logits, axis=0).max()) <= _CONSTANT * float(np.abs(logits).max())


def require_parity(parity: Parity) -> None:
    """Raises `RequirementError`: no latency is published for a session that computes something else."""
    if parity.passed:
        return
    if parity.max_abs_error is None:
        cause = "the session's outputs are not finite, or of the wrong shape"
    elif parity.max_abs_error > parity.tolerance:
        cause = (
            f"the session's logits differ from PyTorch's by up to {parity.max_abs_error:.3g}"
            f" (allowed {parity.tolerance:.3g})"
        )
    else:
        cause = "the session's outputs are the same for every image"
    raise RequirementError(
        cause, "nothing was timed; try another version of the runtime, or report this to its backend"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What a session and the PyTorch reference said of images, in order: all that `summarize` needs of them."""

    classes: int
    session: tuple[int, ...]  # the class that each put first
    reference: tuple[int, ...]
    labels: tuple[int, ...] | None
    reason_without_top1: str | None  # the reason for None
    among_five: tuple[bool, ...]  # whether the label is among the session's first five; empty where that says nothing
    sum_errors: tuple[float, ...]  # of |logit - the reference's|, over an image's classes
    max_error: float


def answers_of(
    session: Session,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64] | None,
    reference: NDArray[np.float32],
    normalization: Normalization,
    batch: int,
    reason_without_top1: str | None = None,
    spare_cpus: Collection[int] = (),
) -> Answers:
    """The answers to `images` (N, H, W, 3), beside the logits `reference` (N, classes)."""
    import numpy as np

    classes = reference.shape[1]
    five = labels is not None and classes > 5
    own: list[int] = []
    others: list[int] = []
    among_five: list[bool] = []
    sum_errors: list[float] = []
    max_error = 0.0
    for logits in logits_of(session, images, normalization, batch, spare_cpus):
        rows = slice(len(own), len(own) + len(logits))
        error = np.abs(logits - reference[rows])
        if labels is not None and five:
            first = np.argpartition(logits, -5, axis=1)[:, -5:]
            among_five += (first == np.asarray(labels[rows])[:, None]).any(axis=1).tolist()
        own += logits.argmax(axis=1).tolist()
        others += reference[rows].argmax(axis=1).tolist()
        sum_errors += error.sum(axis=1, dtype=np.float64).tolist()
        max_error = max(max_error, float(error.max()))
    return Answers(
        classes=classes,
        session=tuple(own),
        reference=tuple(others),
        labels=None if labels is None else tuple(labels.tolist()),
        reason_without_top1=reason_without_top1,
        among_five=tuple(among_five),
        sum_errors=tuple(sum_errors),
        max_error=max_error,
    )


def join(parts: Sequence[Answers]) -> Answers:
    """The answers to shards of a test set, in order, as those to all of it."""
    first = parts[0]
    return Answers(
        classes=first.classes,
        session=tuple(chain.from_iterable(part.session for part in parts)),
        reference=tuple(chain.from_iterable(part.reference for part in parts)),
        labels=None if first.labels is None else tuple(chain.from_iterable(part.labels or () for part in parts)),
        reason_without_top1=first.reason_without_top1,
        among_five=tuple(chain.from_iterable(part.among_five for part in parts)),
        sum_errors=tuple(chain.from_iterable(part.sum_errors for part in parts)),
        max_error=max(part.max_error for part in parts),
    )


def summarize(answers: Answers) -> tuple[Accuracy, dict[str, str]]:
    """Top-1 and top-5 against the labels and agreement with the reference, and why one is missing."""
    import numpy as np

    n = len(answers.session)
    own, reference = np.asarray(answers.session), np.asarray(answers.reference)
    labels = None if answers.labels is None else np.asarray(answers.labels)
    agreeing = int((own == reference).sum())
    reasons: dict[str, str] = {}

    def share(name: str, count: int, reason: str | None) -> tuple[float | None, Interval | None]:
        if reason is None:
            return count / n, wilson_interval(count, n)
        reasons[f"accuracy.{name}"] = reason
        return None, None

    right = 0 if labels is None else int((own == labels).sum())
    few = "every answer is among the first five" if answers.classes <= 5 else None
    share1, interval1 = share("top1", right, answers.reason_without_top1)
    share5, interval5 = share("top5", sum(answers.among_five), answers.reason_without_top1 or few)
    return (
        Accuracy(
            images=n,
            top1=share1,
            top1_ci95=interval1,
            top5=share5,
            top5_ci95=interval5,
            agreement=agreeing / n,
            agreement_ci95=wilson_interval(agreeing, n),
            max_abs_logit_error=answers.max_error,
            mean_abs_logit_error=fsum(answers.sum_errors) / (n * answers.classes),
            drop=None if labels is None else drop(reference, own, labels),
            wrong=None if labels is None else tuple(np.flatnonzero(own != labels).tolist()),
        ),
        reasons,
    )


def drop(reference: NDArray[np.int64], answers: NDArray[np.int64], labels: NDArray[np.int64]) -> Drop:
    """What `answers` (N,) lose against those of the reference on the same images."""
    import numpy as np

    before, after = reference == labels, answers == labels
    lost, gained = int((before & ~after).sum()), int((after & ~before).sum())
    counts = np.bincount(labels)
    losses = np.bincount(labels, before.astype(np.int64) - after) / np.maximum(counts, 1)
    worst = int(losses.argmax())
    return Drop(
        share=(lost - gained) / len(labels),
        ci95=paired_interval(lost, gained, len(labels)),
        only_reference_right=lost,
        only_this_right=gained,
        p_value=mcnemar(lost, gained),
        worst_class=worst,
        worst_class_share=float(losses[worst]),
        by_class=tuple(losses.tolist()),
    )
