"""The memory of a process that holds one session and nothing else."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from mbbench import registry
from mbbench.backend import Artifact
from mbbench.measure import memory
from mbbench.measure.child import Save
from mbbench.result import Failure
from mbbench.spec import Settings

_CALLS = 20  # until allocators have settled


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One artifact, and how to open it."""

    artifact: Artifact
    backend: str
    device: str
    settings: Settings
    cpus: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The report that the child writes.

    `peak_rss_bytes` is the kernel's high-water mark; `added_rss_bytes` is that peak minus the resident memory before
    the runtime is imported, as in `Result.added_rss_bytes`. Both are None where the kernel keeps no high-water mark.
    """

    phase: str
    peak_rss_bytes: int | None = None
    added_rss_bytes: int | None = None
    failure: Failure | None = None


START = Report(phase="start")


def measure(job: Job, spare_cpus: Collection[int], save: Save[Report]) -> Report:
    """Return the peak memory after a few inferences, and how much the session added. Raises `MbbenchError`."""
    import numpy as np

    save(Report(phase="memory"))

    backend = registry.load(job.backend)
    images = np.random.default_rng(0).uniform(-1, 1, job.artifact.input_shape).astype(np.float32)
    start = memory.read("start")
    with backend.open(job.artifact, job.device, threads=job.settings.threads, stage=lambda _: None) as session:
        for _ in range(_CALLS):
            session.run(images)
        steady = memory.read("steady")
    if start is None or steady is None:
        return Report(phase="done")
    peak = steady.peak_rss_bytes
    return Report(phase="done", peak_rss_bytes=peak, added_rss_bytes=peak - start.rss_bytes)
