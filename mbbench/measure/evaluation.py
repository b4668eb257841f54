"""The child process that answers a shard of a test set: `python -m mbbench.measure.evaluation JOB OUT`.

Its session is opened as the measuring one is, on the same artifact, so that several machines of a kind may share the
images of one cell.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from mbbench import registry
from mbbench.backend import Artifact
from mbbench.errors import MbbenchError
from mbbench.machine import allowed_cpus
from mbbench.measure import child
from mbbench.measure.accuracy import Answers, answers_of
from mbbench.models import Normalization
from mbbench.result import Failure
from mbbench.spec import Settings, Shard


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    artifact: Artifact
    backend: str
    device: str
    settings: Settings
    cpus: tuple[int, ...]
    images: Path  # .npy, uint8 (N, H, W, 3): the whole test set
    labels: Path | None  # .npy, int64 (N,)
    no_labels: str | None  # why there are none
    shard: Shard
    reference: Path  # .npy, float32 (M, classes): PyTorch's logits of the shard
    normalization: Normalization


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What OUT holds."""

    phase: str
    answers: Answers | None = None
    failure: Failure | None = None


def evaluate(job: Job, spare_cpus: Collection[int]) -> Answers:
    """Raises `MbbenchError`."""
    import numpy as np

    rows = job.shard.rows
    backend = registry.load(job.backend)
    with backend.open(job.artifact, job.device, threads=job.settings.threads, stage=lambda _: None) as session:
        return answers_of(
            session,
            np.load(job.images, mmap_mode="r")[rows],
            None if job.labels is None else np.load(job.labels)[rows],
            np.load(job.reference, mmap_mode="r"),
            job.normalization,
            job.settings.bulk_batch,
            job.no_labels,
            spare_cpus,
        )


def main(job_path: str, out_path: str) -> int:
    job = child.decode(Path(job_path).read_bytes(), Job)
    report = Report(phase="accuracy")
    child.save(report, Path(out_path))
    spare_cpus = allowed_cpus() - set(job.cpus)
    child.settle(job.cpus)
    try:
        report = replace(report, phase="done", answers=evaluate(job, spare_cpus))
    except MbbenchError as error:
        child.save(replace(report, failure=Failure.of(error)), Path(out_path))
        return error.exit_code
    child.save(report, Path(out_path))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
