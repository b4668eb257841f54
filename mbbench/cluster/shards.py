"""Accuracy in shards: several machines of a kind each evaluate a part of a cell's test images.

The joined answers equal those of a single process to the last bit: every shard begins where a single process would
begin a call of the runtime and one of the PyTorch reference, so that every call sees the same images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from mbbench import data, run
from mbbench.analysis import requirements
from mbbench.artifacts import prepare, reference
from mbbench.artifacts.prepare import Ready
from mbbench.backend import Artifact
from mbbench.errors import CellsFailedError, MbbenchError
from mbbench.events import Preparing, Stated
from mbbench.machine import fingerprint, pick_cpus
from mbbench.measure import accuracy
from mbbench.measure.accuracy import Answers
from mbbench.measure.jobs import shard as shard_job
from mbbench.measure.process import raise_failure, run_in_child
from mbbench.result import Result
from mbbench.spec import RunSpec, Shard

MIN_IMAGES = 1000  # per shard: opening a session takes as long as some hundred images, with torch.compile longer


@dataclass(frozen=True, slots=True)
class MeasuredArtifact:
    """The artifact and weights that a cell was measured with. The artifact's path is valid on that machine only."""

    artifact: Artifact
    weights_sha256: str


def split_images(count: int, step: int, max_shards: int) -> tuple[Shard, ...]:
    """Return up to `max_shards` shards of `count` images, of about equal size, that begin at multiples of `step`.

    Each has at least `MIN_IMAGES` images; if there are too few for two shards, there is one shard.
    """
    smallest = math.ceil(MIN_IMAGES / step) * step
    shards, blocks = max(1, min(max_shards, count // smallest)), math.ceil(count / step)
    bounds = [min(count, index * blocks // shards * step) for index in range(shards + 1)]
    return tuple(Shard(start, stop) for start, stop in pairwise(bounds))


def plan_shards(spec: RunSpec, max_shards: int) -> tuple[Shard, ...]:
    """Return the shards of the test images of the only cell of `spec`. Raises `UsageError`."""
    (cell,) = spec.cells
    preprocessing = prepare.preprocessing_of(spec, cell)
    test = data.load_split(
        spec.data, cell.model.size, "test",
        limit=spec.images, preprocessing=preprocessing, skip_broken=spec.skip_broken,
    )  # fmt: skip
    return split_images(test.count, math.lcm(reference.BATCH, spec.settings.bulk_batch), max_shards)


def measured_artifact(spec: RunSpec) -> MeasuredArtifact:
    """Return the artifact of the only cell of `spec`, which was measured on this machine. Raises `MbbenchError`."""
    ready = _ready(spec)
    exported = prepare.make_artifact(spec, ready, _quiet)
    artifact = exported.artifact(ready.cell.model, spec.settings.batch, ready.cell.precision)
    return MeasuredArtifact(artifact, ready.weights.sha256())


def evaluate_shard(spec: RunSpec, id: str, measured: MeasuredArtifact, path: Path, shard: Shard) -> Answers:
    """Return the answers of the only cell of `spec` to the images of a shard.

    The cell was measured as `id` on another machine; `path` is the measured artifact's file on this one. Raises
    `MbbenchError`, in particular if this machine would have measured something else.
    """
    ready = _ready(spec)
    cell = ready.cell
    local_id = run.result_id(spec, fingerprint(), cell, ready, measured.artifact.sha256)
    if local_id != id or ready.weights.sha256() != measured.weights_sha256:
        raise CellsFailedError(
            "a worker's versions, test images or weights differ from those that this cell was measured with",
            "install the same versions on all machines, use the same data, and empty their caches",
        )
    reason_without_top1 = prepare.reason_without_top1(ready)
    job = shard_job.Job(
        artifact=replace(measured.artifact, path=path),
        backend=cell.backend,
        device=cell.device,
        settings=spec.settings,
        cpus=pick_cpus(spec.settings.threads),
        images=ready.data.images,
        labels=ready.data.labels if reason_without_top1 is None else None,
        reason_without_top1=reason_without_top1,
        shard=shard,
        reference=reference.logits(ready.weights, ready.data, shard=shard),
        preprocessing=ready.data.preprocessing_for(cell.model.family),
    )
    report = run_in_child(job, shard_job.START)
    raise_failure(report.failure)
    if report.answers is None:
        raise MbbenchError("the process that evaluates accuracy returned no answers", "report this bug")
    return report.answers


def join(spec: RunSpec, result: Result, parts: Sequence[Answers]) -> Result:
    """Return `result` with the accuracy from the answers to all shards, in order.

    If it does not meet a requirement of `spec`, the result has that failure.
    """
    figures, reasons = accuracy.accuracy_figures(accuracy.join_answers(parts))
    return replace(
        result,
        measured=replace(result.measured, accuracy=figures),
        reasons={**result.reasons, **reasons},
        failure=requirements.first_failure(spec, result.cell, result.quantization, result.executed, figures),
    )


def _ready(spec: RunSpec) -> Ready:
    """Return the only cell of `spec`, prepared. Raises `MbbenchError`."""
    (ready,) = prepare.prepare_all(spec, _quiet)
    assert isinstance(ready, Ready)  # if the only cell is unavailable, prepare_all raises
    return ready


def _quiet(_: Preparing | Stated) -> None:
    pass
