"""Evaluate one shard of a test set.

The session is opened like the measuring one and on the same artifact, so that several machines of a kind can share the
images of one cell.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from mbbench import registry
from mbbench.backend import Artifact
from mbbench.measure.accuracy import Answers, collect_answers
from mbbench.measure.child import Save
from mbbench.result import Failure
from mbbench.spec import Preprocessing, Settings, Shard


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Everything the child needs, as files and plain data."""

    artifact: Artifact
    backend: str
    device: str
    settings: Settings
    cpus: tuple[int, ...]
    images: Path  # .npy, uint8 (N, H, W, 3): the whole test set
    labels: Path | None  # .npy, int64 (N,)
    reason_without_top1: str | None  # why `labels` is None
    shard: Shard
    reference: Path  # .npy, float32 (M, classes): PyTorch's logits of the shard
    preprocessing: Preprocessing


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The report that the child writes."""

    phase: str
    answers: Answers | None = None
    failure: Failure | None = None


START = Report(phase="start")


def measure(job: Job, spare_cpus: Collection[int], save: Save[Report]) -> Report:
    """Return the session's answers to the shard's images. Raises `MbbenchError`."""
    import numpy as np

    save(Report(phase="accuracy"))
    rows = job.shard.rows
    backend = registry.load(job.backend)
    with backend.open(job.artifact, job.device, threads=job.settings.threads, stage=lambda _: None) as session:
        answers = collect_answers(
            session,
            np.load(job.images, mmap_mode="r")[rows],
            None if job.labels is None else np.load(job.labels)[rows],
            np.load(job.reference, mmap_mode="r"),
            job.preprocessing,
            job.settings.bulk_batch,
            job.reason_without_top1,
            spare_cpus,
        )
    return Report(phase="done", answers=answers)
