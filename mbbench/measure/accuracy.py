"""Check a session's logits before its latency is measured, and evaluate its accuracy on the test set afterward.

The check compares with PyTorch's logits; for INT8, with those of the session's Q/DQ graph computed in floats.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from math import fsum
from typing import TYPE_CHECKING

from mbbench.backend import Session
from mbbench.errors import RequirementError
from mbbench.result import Accuracy, Parity, Top1Drop
from mbbench.spec import Precision, Preprocessing
from mbbench.stats import Interval, mcnemar, paired_interval, wilson_interval

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Relative to the largest reference logit. fp32 kernels differ by about 1e-5, a wrong layer by far more. bf16 keeps 8
# bits of the mantissa and fp16 keeps 11, and every layer rounds again. INT8 is compared with the same graph computed in
# floats: integer kernels differ from it by 1 to 12 %, where a value rounds the other way or is rounded once, not twice.
_TOLERANCES: dict[Precision, float] = {"fp32": 1e-3, "fp16": 1e-2, "bf16": 1e-1, "int8": 2.5e-1}
# Relative to the largest logit: if logits spread over images by no more than this, they do not depend on the input.
_CONSTANT_SPREAD = 1e-6


def logits_of(
    session: Session,
    images: NDArray[np.uint8],
    preprocessing: Preprocessing,
    batch: int,
    spare_cpus: Collection[int] = (),
) -> Iterator[NDArray[np.float32]]:
    """Yield the logits of `images` (N, H, W, 3) in chunks of `batch`.

    A thread on `spare_cpus` prepares the next chunk while the session runs.
    """
    from mbbench.data.feed import batches

    for chunk, count in batches(images, preprocessing, batch, spare_cpus):
        yield session.run(chunk)[:count]


def check_parity(
    session: Session,
    images: NDArray[np.uint8],
    reference: NDArray[np.float32],
    preprocessing: Preprocessing,
    batch: int,
    precision: Precision = "fp32",
) -> Parity:
    """Compare the session's logits of `images` (N, H, W, 3) with `reference` (N, classes)."""
    import numpy as np

    logits = np.concatenate(list(logits_of(session, images, preprocessing, batch)))
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
    """Return whether all images have the same logits (N, classes); False for a single image."""
    import numpy as np

    return len(logits) > 1 and float(np.ptp(logits, axis=0).max()) <= _CONSTANT_SPREAD * float(np.abs(logits).max())


def require_parity(parity: Parity, where: str = "; no latency was measured") -> None:
    """Raise `RequirementError` unless the check passed: a wrong result has no meaningful latency.

    `where` ends the message.
    """
    if parity.passed:
        return
    if parity.max_abs_error is None:
        cause = "the session's outputs are not finite or have the wrong shape"
    elif parity.max_abs_error > parity.tolerance:
        cause = (
            f"the session's logits differ from PyTorch's by up to {parity.max_abs_error:.3g}"
            f" (allowed {parity.tolerance:.3g})"
        )
    else:  # and so are PyTorch's, about as the tolerance is wide: the runtime is not to blame
        raise RequirementError("the session's outputs are the same for every image", f"check the weights{where}")
    raise RequirementError(cause, f"try another version of the runtime, or report this to the backend's authors{where}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """The predictions of a session and of the PyTorch reference, image by image: the input of `accuracy_figures`."""

    classes: int
    session: tuple[int, ...]  # the session's top-1 classes
    reference: tuple[int, ...]  # the reference's top-1 classes
    labels: tuple[int, ...] | None
    reason_without_top1: str | None  # why `labels` is None
    among_five: tuple[
        bool, ...
    ]  # whether the label is in the session's top 5; empty without labels or with 5 classes or fewer
    sum_errors: tuple[float, ...]  # |session's logit - reference's logit|, summed over the classes
    max_error: float


def collect_answers(
    session: Session,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64] | None,
    reference: NDArray[np.float32],
    preprocessing: Preprocessing,
    batch: int,
    reason_without_top1: str | None = None,
    spare_cpus: Collection[int] = (),
) -> Answers:
    """Run `images` (N, H, W, 3) and return the predictions next to those of the logits `reference` (N, classes)."""
    import numpy as np

    classes = reference.shape[1]
    has_top5 = labels is not None and classes > 5
    predictions: list[int] = []
    reference_predictions: list[int] = []
    among_five: list[bool] = []
    sum_errors: list[float] = []
    max_error = 0.0
    for logits in logits_of(session, images, preprocessing, batch, spare_cpus):
        rows = slice(len(predictions), len(predictions) + len(logits))
        error = np.abs(logits - reference[rows])
        if labels is not None and has_top5:
            top5 = np.argpartition(logits, -5, axis=1)[:, -5:]
            among_five += (top5 == np.asarray(labels[rows])[:, None]).any(axis=1).tolist()
        predictions += logits.argmax(axis=1).tolist()
        reference_predictions += reference[rows].argmax(axis=1).tolist()
        sum_errors += error.sum(axis=1, dtype=np.float64).tolist()
        max_error = max(max_error, float(error.max()))
    return Answers(
        classes=classes,
        session=tuple(predictions),
        reference=tuple(reference_predictions),
        labels=None if labels is None else tuple(labels.tolist()),
        reason_without_top1=reason_without_top1,
        among_five=tuple(among_five),
        sum_errors=tuple(sum_errors),
        max_error=max_error,
    )


def join_answers(parts: Sequence[Answers]) -> Answers:
    """Concatenate the answers to the shards of a test set, in order."""
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


def accuracy_figures(answers: Answers) -> tuple[Accuracy, dict[str, str]]:
    """Return top-1, top-5 and the agreement with the reference, and the reason for each missing figure."""
    import numpy as np

    n = len(answers.session)
    predictions, reference = np.asarray(answers.session), np.asarray(answers.reference)
    labels = None if answers.labels is None else np.asarray(answers.labels)
    agreeing = int((predictions == reference).sum())
    reasons: dict[str, str] = {}

    def share(name: str, count: int, reason: str | None) -> tuple[float | None, Interval | None]:
        if reason is None:
            return count / n, wilson_interval(count, n)
        reasons[f"accuracy.{name}"] = reason
        return None, None

    correct = 0 if labels is None else int((predictions == labels).sum())
    trivial = (
        "the model has at most five classes, so the top five include all of them" if answers.classes <= 5 else None
    )
    top1, top1_ci95 = share("top1", correct, answers.reason_without_top1)
    top5, top5_ci95 = share("top5", sum(answers.among_five), answers.reason_without_top1 or trivial)
    return (
        Accuracy(
            images=n,
            top1=top1,
            top1_ci95=top1_ci95,
            top5=top5,
            top5_ci95=top5_ci95,
            agreement=agreeing / n,
            agreement_ci95=wilson_interval(agreeing, n),
            max_abs_logit_error=answers.max_error,
            mean_abs_logit_error=fsum(answers.sum_errors) / (n * answers.classes),
            drop=None if labels is None else top1_drop(reference, predictions, labels),
            wrong=None if labels is None else tuple(np.flatnonzero(predictions != labels).tolist()),
        ),
        reasons,
    )


def top1_drop(reference: NDArray[np.int64], predictions: NDArray[np.int64], labels: NDArray[np.int64]) -> Top1Drop:
    """Return how much top-1 `predictions` (N,) lose against the reference's predictions (N,) of the same images."""
    import numpy as np

    before, after = reference == labels, predictions == labels
    lost, gained = int((before & ~after).sum()), int((after & ~before).sum())
    counts = np.bincount(labels)
    losses = np.bincount(labels, before.astype(np.int64) - after) / np.maximum(counts, 1)
    worst = int(losses.argmax())
    return Top1Drop(
        share=(lost - gained) / len(labels),
        ci95=paired_interval(lost, gained, len(labels)),
        only_reference_right=lost,
        only_this_right=gained,
        p_value=mcnemar(lost, gained),
        worst_class=worst,
        worst_class_share=float(losses[worst]),
        by_class=tuple(losses.tolist()),
    )
