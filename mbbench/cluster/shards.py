"""A cell's accuracy apart from its measurement: several machines of its kind evaluate a shard of the test images each.

The shards say together what one process says of all images, to the last bit: each begins where a call of the runtime
and one of the PyTorch reference begin there, so that every call sees the same images.
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
from mbbench.events import Working
from mbbench.machine import fingerprint, pick_cpus
from mbbench.measure import accuracy
from mbbench.measure.accuracy import Answers
from mbbench.measure.jobs import shard as shard_job
from mbbench.measure.process import require, run_in_child
from mbbench.models import normalization
from mbbench.result import Result
from mbbench.spec import RunSpec, Shard

MIN_IMAGES = 1000  # in a shard: opening a session takes as long as some hundred images, and torch.compile's longer


@dataclass(frozen=True, slots=True)
class Subject:
    """What was measured, for whoever evaluates it; the artifact's path is the measuring machine's."""

    artifact: Artifact
    weights_sha256: str


def divide(count: int, step: int, most: int) -> tuple[Shard, ...]:
    """`count` images in up to `most` shards of about the same size, which begin at multiples of `step`.

    Each has `MIN_IMAGES` or more; where they are too few there is a single one.
    """
    least = math.ceil(MIN_IMAGES / step) * step
    shards, blocks = max(1, min(most, count // least)), math.ceil(count / step)
    bounds = [min(count, index * blocks // shards * step) for index in range(shards + 1)]
    return tuple(Shard(start, stop) for start, stop in pairwise(bounds))


def plan_shards(spec: RunSpec, most: int) -> tuple[Shard, ...]:
    """Those of the only cell's test images. Raises `UsageError`."""
    (cell,) = spec.cells
    test = data.load(spec.data, cell.model.resolution, "test", limit=spec.images)
    return divide(test.count, math.lcm(reference.BATCH, spec.settings.bulk_batch), most)


def subject(spec: RunSpec) -> Subject:
    """The only cell's, which was prepared on this machine. Raises `MbbenchError`."""
    ready = _ready(spec)
    exported = prepare.make(spec, ready, _quiet)
    artifact = exported.artifact(ready.cell.model, spec.settings.batch, ready.cell.precision)
    return Subject(artifact, ready.weights.sha256())


def answers(spec: RunSpec, id: str, subject: Subject, artifact: Path, shard: Shard) -> Answers:
    """To the shard's images, of the only cell, measured as `id` elsewhere; `artifact` is the subject's file here.

    Raises `MbbenchError`, above all where this machine would have measured something else.
    """
    ready = _ready(spec)
    cell = ready.cell
    own = run.identity(spec, fingerprint(), cell, ready, subject.artifact.sha256)
    if own != id or ready.weights.sha256() != subject.weights_sha256:
        raise CellsFailedError(
            "a worker has other versions, test images or weights than the one of its kind that measured this cell",
            "install the same versions on both, name the same data, and empty their caches",
        )
    reason_without_top1 = prepare.reason_without_top1(ready)
    job = shard_job.Job(
        artifact=replace(subject.artifact, path=artifact),
        backend=cell.backend,
        device=cell.device,
        settings=spec.settings,
        cpus=pick_cpus(spec.settings.threads),
        images=ready.data.images,
        labels=ready.data.labels if reason_without_top1 is None else None,
        reason_without_top1=reason_without_top1,
        shard=shard,
        reference=reference.logits(ready.weights, ready.data, shard=shard),
        normalization=normalization(cell.model.family),
    )
    report = run_in_child(job, shard_job.START)
    require(report.failure)
    if report.answers is None:
        raise MbbenchError("the process that evaluates accuracy said nothing", "please report it")
    return report.answers


def join(spec: RunSpec, result: Result, parts: Sequence[Answers]) -> Result:
    """`result` with the accuracy that follows from the answers to all shards, in order, held to what was promised."""
    figures, reasons = accuracy.summarize(accuracy.join(parts))
    return replace(
        result,
        measured=replace(result.measured, accuracy=figures),
        reasons={**result.reasons, **reasons},
        failure=requirements.unmet(spec, result.cell, result.quantization, result.executed, figures),
    )


def _ready(spec: RunSpec) -> Ready:
    (ready,) = prepare.prepare_all(spec, _quiet)
    assert isinstance(ready, Ready)  # a backend that cannot start has raised: there is no other
    return ready


def _quiet(_: Working) -> None:
    pass
