"""Compare two artifacts in one process.

Both are open at the same time on one backend and their calls alternate, so that whatever happens to the machine affects
both. A replicate is a newly opened pair of sessions. Two sessions of the same file differ by up to 2 %, depending on
where their memory is and which was opened first; that must appear as spread between replicates, not as a difference
between the artifacts.

Single calls alternate, not blocks of calls: blocks of three gave twice the standard deviation in the same time, since
the machine changes within milliseconds. The price is that each call finds the caches as the other session left them, so
the latencies are higher than those of `mbbench run`, like those of a busy machine. Only their ratio matters here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING

from mbbench import registry
from mbbench.backend import Artifact, Backend, Session
from mbbench.errors import RequirementError
from mbbench.measure import accuracy, latency
from mbbench.measure.child import Save
from mbbench.result import Failure
from mbbench.spec import Preprocessing, Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MIN_REPLICATES = 10  # five in each order
_REPLICATE_S = 0.1  # of timing: many short replicates beat few long ones, up to the cost of opening sessions
_MIN_PAIRS = 6
_WARM_PAIRS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Two artifacts, and what to measure.

    `seconds` are for opening, warming up and timing together; ten replicates may take longer. None: nothing is timed.
    `answers`: whether the sessions' predictions are compared.
    """

    baseline: Artifact
    candidate: Artifact
    backend: str
    device: str
    settings: Settings
    cpus: tuple[int, ...]
    images: Path  # .npy, uint8 (N, H, W, 3)
    labels: Path | None  # .npy, int64 (N,)
    preprocessing: Preprocessing
    seconds: float | None
    answers: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicate:
    """The latencies of one pair of sessions, in the order measured; the n-th of each were measured back to back."""

    baseline_ms: tuple[float, ...]
    candidate_ms: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedAnswers:
    """How many images each of two sessions classifies correctly; None without labels.

    `agreeing`: images with the same top-1 class. `only_...`: images that only one session classifies correctly.
    """

    images: int
    agreeing: int
    baseline_right: int | None
    candidate_right: int | None
    only_baseline_right: int | None
    only_candidate_right: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The report that the child writes.

    Replicates come in couples: the baseline was opened first in one, second in the next.
    """

    phase: str
    replicates: tuple[Replicate, ...] = ()
    answers: PairedAnswers | None = None
    failure: Failure | None = None


START = Report(phase="start")


def measure(
    job: Job, spare_cpus: Collection[int], save: Save[Report], clock: Callable[[], int] = perf_counter_ns
) -> Report:
    """Run all phases in order; `save` is called between them. Raises `MbbenchError`."""
    import numpy as np

    from mbbench.data.feed import full_batch

    images = np.load(job.images, mmap_mode="r")
    backend = registry.load(job.backend)
    save(Report(phase="open"))
    report = Report(phase="latency")
    if job.seconds is not None:
        batch = full_batch(images, job.preprocessing, job.settings.batch)
        for replicates in _measure_couples(job, backend, batch, job.seconds, clock):
            report = replace(report, replicates=replicates)
            save(report)
    if job.answers:
        report = replace(report, phase="accuracy")
        save(report)
        labels = None if job.labels is None else np.load(job.labels)
        report = replace(report, answers=_compare_answers(job, backend, images, labels))
    return replace(report, phase="done")


def _measure_couples(
    job: Job, backend: Backend, images: NDArray[np.float32], seconds: float, clock: Callable[[], int]
) -> Iterator[tuple[Replicate, ...]]:
    """Measure couples of replicates while there is time for another; yield all replicates so far after each couple."""
    replicates: tuple[Replicate, ...] = ()
    start = clock()
    while True:
        for baseline_first in (True, False):
            replicate = _measure_replicate(job, backend, images, baseline_first=baseline_first, clock=clock)
            replicates = (*replicates, replicate)
        yield replicates
        elapsed = (clock() - start) / 1e9
        if len(replicates) >= MIN_REPLICATES and elapsed * (1 + 2 / len(replicates)) > seconds:
            return


def _measure_replicate(
    job: Job, backend: Backend, images: NDArray[np.float32], *, baseline_first: bool, clock: Callable[[], int]
) -> Replicate:
    order = (job.baseline, job.candidate) if baseline_first else (job.candidate, job.baseline)
    with _open(job, backend, order[0]) as first, _open(job, backend, order[1]) as second:
        run_first, run_second = first.run, second.run
        with latency.no_garbage_collection():
            first_ns, second_ns = latency.time_pairs(
                lambda: run_first(images),
                lambda: run_second(images),
                warm_pairs=_WARM_PAIRS,
                min_pairs=_MIN_PAIRS,
                seconds=_REPLICATE_S,
                clock=clock,
            )
    samples_ms = [tuple(ns / 1e6 for ns in samples_ns) for samples_ns in (first_ns, second_ns)]
    if not baseline_first:
        samples_ms.reverse()
    return Replicate(baseline_ms=samples_ms[0], candidate_ms=samples_ms[1])


def _compare_answers(
    job: Job, backend: Backend, images: NDArray[np.uint8], labels: NDArray[np.int64] | None
) -> PairedAnswers:
    """Run the images (N, H, W, 3) on each session; raises `RequirementError` if its outputs are meaningless."""
    import numpy as np

    predictions = []
    for name, artifact in (("baseline", job.baseline), ("candidate", job.candidate)):
        with _open(job, backend, artifact) as session:
            parts = list(accuracy.logits_of(session, images, job.preprocessing, job.settings.bulk_batch))
        logits = np.concatenate(parts)
        if not np.isfinite(logits).all() or accuracy.is_constant(logits):
            raise RequirementError(
                f"the {name}'s outputs are not finite, or are the same for every image", "check its weights"
            )
        predictions.append(logits.argmax(axis=1))
    before, after = predictions
    if labels is None:
        counts: tuple[int | None, ...] = (None,) * 4
    else:
        right_before, right_after = before == labels, after == labels
        masks = (right_before, right_after, right_before & ~right_after, right_after & ~right_before)
        counts = tuple(int(mask.sum()) for mask in masks)
    return PairedAnswers(
        images=len(before),
        agreeing=int((before == after).sum()),
        baseline_right=counts[0],
        candidate_right=counts[1],
        only_baseline_right=counts[2],
        only_candidate_right=counts[3],
    )


def _open(job: Job, backend: Backend, artifact: Artifact) -> Session:
    return backend.open(artifact, job.device, threads=job.settings.threads, stage=lambda _: None)
