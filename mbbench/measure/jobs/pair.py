"""Two artifacts, compared in one process.

Both are open at once on one backend and their calls alternate, so that whatever happens to the machine happens to both.
A replicate is a pair of sessions opened anew: sessions of one file differ by up to 2 % (where their memory lies, which
was opened first), and that must show as spread between replicates and not as a difference between artifacts.

Single calls alternate, not blocks of calls: blocks of three gave twice the standard deviation in the same time, since
the machine changes within milliseconds. The price is that each call finds the caches as the other session left them,
so that the latencies are a busy machine's, higher than those of `mbbench run`. Their ratio is what is asked for.
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
from mbbench.models import Normalization
from mbbench.result import Failure
from mbbench.spec import Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MIN_REPLICATES = 10  # five in each order
_WINDOW_S = 0.1  # of timing in a replicate: many short ones beat few long ones, as far as opening them allows
_MIN_PAIRS = 6
_WARM_PAIRS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """`seconds` are for opening, warming up and timing; what must be measured at least may take longer.

    None: nothing is timed. `answers` says whether the images are to be answered.
    """

    baseline: Artifact
    candidate: Artifact
    backend: str
    device: str
    settings: Settings
    cpus: tuple[int, ...]
    images: Path  # .npy, uint8 (N, H, W, 3)
    labels: Path | None  # .npy, int64 (N,)
    normalization: Normalization
    seconds: float | None
    answers: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicate:
    """The latencies of one pair of sessions, in the order measured; the n-th of each are neighbours in time."""

    baseline_ms: tuple[float, ...]
    candidate_ms: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """How two sessions answered the same images. `only_...`: images that one alone got right; None without labels."""

    images: int
    agreeing: int
    baseline_right: int | None
    candidate_right: int | None
    only_baseline_right: int | None
    only_candidate_right: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What OUT holds. Replicates come in couples: in the first of each the baseline was opened first, then second."""

    phase: str
    replicates: tuple[Replicate, ...] = ()
    answers: Answers | None = None
    failure: Failure | None = None


START = Report(phase="start")


def measure(
    job: Job, spare_cpus: Collection[int], save: Save[Report], clock: Callable[[], int] = perf_counter_ns
) -> Report:
    """All phases in order; `save` is called between them. Raises `MbbenchError`."""
    import numpy as np

    from mbbench.data.feed import chunk

    images = np.load(job.images, mmap_mode="r")
    backend = registry.load(job.backend)
    save(Report(phase="open"))
    report = Report(phase="latency")
    if job.seconds is not None:
        batch = chunk(images, job.normalization, job.settings.batch)
        for replicates in _couples(job, backend, batch, job.seconds, clock):
            report = replace(report, replicates=replicates)
            save(report)
    if job.answers:
        report = replace(report, phase="accuracy")
        save(report)
        labels = None if job.labels is None else np.load(job.labels)
        report = replace(report, answers=_answers(job, backend, images, labels))
    return replace(report, phase="done")


def _couples(
    job: Job, backend: Backend, images: NDArray[np.float32], seconds: float, clock: Callable[[], int]
) -> Iterator[tuple[Replicate, ...]]:
    """All replicates so far, after every couple, while there is time for another."""
    found: tuple[Replicate, ...] = ()
    start = clock()
    while True:
        for baseline_first in (True, False):
            found = (*found, _replicate(job, backend, images, baseline_first=baseline_first, clock=clock))
        yield found
        elapsed = (clock() - start) / 1e9
        if len(found) >= MIN_REPLICATES and elapsed * (1 + 2 / len(found)) > seconds:
            return


def _replicate(
    job: Job, backend: Backend, images: NDArray[np.float32], *, baseline_first: bool, clock: Callable[[], int]
) -> Replicate:
    order = (job.baseline, job.candidate) if baseline_first else (job.candidate, job.baseline)
    with _open(job, backend, order[0]) as first, _open(job, backend, order[1]) as second:
        run_first, run_second = first.run, second.run
        with latency.no_garbage_collection():
            own, other = latency.time_pairs(
                lambda: run_first(images),
                lambda: run_second(images),
                warm_pairs=_WARM_PAIRS,
                min_pairs=_MIN_PAIRS,
                seconds=_WINDOW_S,
                clock=clock,
            )
    samples = [tuple(ns / 1e6 for ns in times) for times in (own, other)]
    if not baseline_first:
        samples.reverse()
    return Replicate(baseline_ms=samples[0], candidate_ms=samples[1])


def _answers(job: Job, backend: Backend, images: NDArray[np.uint8], labels: NDArray[np.int64] | None) -> Answers:
    """Raises `RequirementError` where a session's outputs mean nothing."""
    import numpy as np

    found = []
    for name, artifact in (("baseline", job.baseline), ("candidate", job.candidate)):
        with _open(job, backend, artifact) as session:
            parts = list(accuracy.logits_of(session, images, job.normalization, job.settings.bulk_batch))
        logits = np.concatenate(parts)
        if not np.isfinite(logits).all() or accuracy.is_constant(logits):
            raise RequirementError(
                f"the {name}'s outputs are not finite, or the same for every image", "look at its weights"
            )
        found.append(logits.argmax(axis=1))
    before, after = found
    if labels is None:
        rights: tuple[int | None, ...] = (None,) * 4
    else:
        was, now = before == labels, after == labels
        rights = tuple(int(which.sum()) for which in (was, now, was & ~now, now & ~was))
    return Answers(
        images=len(before),
        agreeing=int((before == after).sum()),
        baseline_right=rights[0],
        candidate_right=rights[1],
        only_baseline_right=rights[2],
        only_candidate_right=rights[3],
    )


def _open(job: Job, backend: Backend, artifact: Artifact) -> Session:
    return backend.open(artifact, job.device, threads=job.settings.threads, stage=lambda _: None)
