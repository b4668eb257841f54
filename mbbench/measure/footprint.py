"""The child process that holds one session and nothing else: `python -m mbbench.measure.footprint JOB OUT`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from mbbench import registry
from mbbench.backend import Artifact
from mbbench.errors import MbbenchError
from mbbench.measure import child, memory
from mbbench.result import Failure
from mbbench.spec import Settings

_CALLS = 20  # allocators have settled by then


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    artifact: Artifact
    backend: str
    device: str
    settings: Settings
    cpus: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """`peak_rss_bytes`: the kernel's high-water mark after a few inferences; None where it keeps none."""

    phase: str
    peak_rss_bytes: int | None = None
    failure: Failure | None = None


def measure(job: Job) -> Report:
    """Raises `MbbenchError`."""
    import numpy as np

    backend = registry.load(job.backend)
    images = np.random.default_rng(0).uniform(-1, 1, job.artifact.input_shape).astype(np.float32)
    with backend.open(job.artifact, job.device, threads=job.settings.threads, stage=lambda _: None) as session:
        for _ in range(_CALLS):
            session.run(images)
        reading = memory.read("steady")
    return Report(phase="done", peak_rss_bytes=None if reading is None else reading.peak_rss_bytes)


def main(job_path: str, out_path: str) -> int:
    job = child.decode(Path(job_path).read_bytes(), Job)
    child.settle(job.cpus)
    try:
        child.save(measure(job), Path(out_path))
    except MbbenchError as error:
        failure = Failure.of(error)
        child.save(Report(phase="memory", failure=failure), Path(out_path))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
