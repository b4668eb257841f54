"""`mbbench keep`, `check` and `calibrate`: compare artifacts by alternating calls in one run on one machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypedDict

from mbbench import doctor
from mbbench.artifacts import prepare
from mbbench.artifacts.prepare import Ready, Unavailable
from mbbench.backend import Artifact
from mbbench.compare import baseline, changes, gate, noise
from mbbench.compare.changes import Change, Limit
from mbbench.compare.gate import Finding, Readings, Verdict
from mbbench.compare.noise import Noise
from mbbench.compare.record import SCHEMA, CellVerdict, GateRecord
from mbbench.errors import InconclusiveError, MbbenchError, RegressionError
from mbbench.events import Announce, Measuring, Notify
from mbbench.machine import fingerprint, pick_cpus
from mbbench.measure.jobs import footprint
from mbbench.measure.jobs import pair as alternation
from mbbench.measure.process import raise_failure, run_in_child
from mbbench.result import Failure
from mbbench.spec import Cell, RunSpec, Settings


@dataclass(frozen=True, slots=True)
class _Pair:
    """A cell's two artifacts, and the readings and errors of the rounds so far."""

    ready: Ready
    baseline: Artifact
    candidate: Artifact
    noise: Noise | None
    rounds: list[Readings] = field(default_factory=list)
    errors: list[MbbenchError] = field(default_factory=list)

    @property
    def same_file(self) -> bool:
        return self.baseline.sha256 == self.candidate.sha256

    def findings(self, limits: Sequence[Limit]) -> list[Finding]:
        """Return the finding on each limit's metric from the rounds so far."""
        noise = self.noise
        return [
            gate.assess(limit, self.rounds)
            if noise is None or limit.metric not in noise.floors
            else gate.assess(limit, self.rounds, noise.floors[limit.metric].within, noise.rounds_of(limit.metric))
            for limit in limits
        ]


def keep(spec: RunSpec, folder: Path, announce: Announce) -> None:
    """Make every cell's artifact and store all of them in `folder`. Raises `MbbenchError`, and then stores none."""
    artifacts = []
    for ready in _ready(spec, announce):
        exported = prepare.make_artifact(spec, ready, announce)
        artifacts.append((ready.cell, exported, prepare.versions([ready])))
    baseline.write(folder, artifacts)


def check(spec: RunSpec, folder: Path, limits: Sequence[Limit], seconds: float, notify: Notify) -> GateRecord:
    """Judge every cell of `spec` against its baseline in `folder`, with `seconds` of timing per cell and round.

    A cell that seems worse than its limits allow is measured a second time, in new processes. Raises `MbbenchError` if
    a cell cannot be prepared; a cell that fails while it is measured is recorded with its failure.
    """
    machine = fingerprint()
    cpus = pick_cpus(spec.settings.threads)
    entries = baseline.read_manifest(folder)
    pairs = []
    for ready in _ready(spec, notify):
        before = baseline.find_artifact(entries, folder, ready.cell, spec.settings.batch)
        exported = prepare.make_artifact(spec, ready, notify)
        after = exported.artifact(ready.cell.model, spec.settings.batch, ready.cell.precision)
        calibrated = noise.read(machine, ready.cell, spec.settings.threads, spec.settings.batch)
        pairs.append(_Pair(ready, before, after, calibrated))

    def measure(pairs: Sequence[_Pair]) -> None:
        for index, pair in enumerate(pairs, 1):
            notify(Measuring(pair.ready.cell, index, len(pairs)))
            try:
                pair.rounds.append(_readings(spec, pair, limits, seconds, cpus))
            except MbbenchError as error:
                pair.errors.append(error)

    snapshot = doctor.snapshot()
    different = [pair for pair in pairs if not pair.same_file]
    measure(different)
    measure([pair for pair in different if not pair.errors and gate.needs_second_round(pair.findings(limits))])
    verdicts = iter(gate.judge([pair.findings(limits) for pair in different if not pair.errors]))
    cells = tuple(
        CellVerdict(
            cell=pair.ready.cell,
            baseline_sha256=pair.baseline.sha256,
            candidate_sha256=pair.candidate.sha256,
            rounds=tuple(pair.rounds),
            verdicts=() if pair.errors else _passing_verdicts(pair, limits) if pair.same_file else next(verdicts),
            noise=pair.noise,
            failure=Failure.from_error(pair.errors[0]) if pair.errors else None,
        )
        for pair in pairs
    )
    conditions = doctor.judge(machine, snapshot, doctor.snapshot())
    return GateRecord(
        schema=SCHEMA,
        time_utc=_now(),
        machine=machine,
        versions=prepare.versions([pair.ready for pair in pairs]),
        conditions=conditions,
        cells=cells,
    )


def calibrate(spec: RunSpec, rounds: int, seconds: float, notify: Notify) -> Iterator[tuple[Cell, Noise]]:
    """Compare every cell's artifact with itself in `rounds` rounds; store and yield the noise that they show."""
    machine = fingerprint()
    cpus = pick_cpus(spec.settings.threads)
    limits = changes.parse_limits(
        [limit for limit in changes.DEFAULT_LIMITS if limit.partition(":")[0] in noise.METRICS]
    )  # a limit on rss measures added-rss too
    for ready in _ready(spec, notify):
        exported = prepare.make_artifact(spec, ready, notify)
        artifact = exported.artifact(ready.cell.model, spec.settings.batch, ready.cell.precision)
        readings = []
        for index in range(1, rounds + 1):
            notify(Measuring(ready.cell, index, rounds))
            readings.append(_readings(spec, _Pair(ready, artifact, artifact, None), limits, seconds, cpus))
        estimate = noise.estimate(readings, seconds, _now())
        noise.write(estimate, machine, ready.cell, spec.settings.threads, spec.settings.batch)
        yield ready.cell, estimate


def raise_for_outcome(record: GateRecord, *, strict: bool) -> None:
    """Raise the error for the outcome; return if the check passed.

    Raises `RegressionError` if a cell is worse than its limits; otherwise the failure of the first cell that could not
    be measured (a `RequirementError`, a `BackendError` or else a `CellsFailedError`); otherwise, if `strict`,
    `InconclusiveError` if a verdict is inconclusive.
    """
    decisive = [cell for cell in record.cells if cell.outcome == record.outcome]
    count = f"{len(decisive)} of {len(record.cells)} cells"
    if record.outcome == "fail":
        raise RegressionError(f"{count} are worse than their limits allow", "see the table, or raise --fail-on")
    for cell in record.cells:
        raise_failure(cell.failure)
    if record.outcome == "inconclusive" and strict:
        raise InconclusiveError(
            f"{count} could not be shown to be within their limits",
            "raise --time or --fail-on, or use a quieter machine",
        )


def _passing_verdicts(pair: _Pair, limits: Sequence[Limit]) -> tuple[Verdict, ...]:
    """Return the verdicts of a pair whose artifacts are the same file, which need no measurement."""
    size = float(pair.candidate.path.stat().st_size)

    def passed(limit: Limit) -> Verdict:
        value = size if limit.metric == "size" else None
        reason = "the artifact is the baseline's, byte for byte"
        change = Change(metric=limit.metric, baseline=value, candidate=value, change=0.0, reason=reason)
        return Verdict(change=change, limit=limit, outcome="pass")

    return tuple(map(passed, limits))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _ready(spec: RunSpec, announce: Announce) -> list[Ready]:
    """Return all cells, prepared. Raises `MbbenchError` if one cannot be prepared."""
    cells = prepare.prepare_all(spec, announce)
    for cell in cells:
        if isinstance(cell, Unavailable):
            raise cell.error
    return [cell for cell in cells if isinstance(cell, Ready)]


def _readings(spec: RunSpec, pair: _Pair, limits: Sequence[Limit], seconds: float, cpus: tuple[int, ...]) -> Readings:
    """Measure one round: a process for the alternating calls and the answers, and one for each artifact's memory."""
    ready, metrics = pair.ready, {limit.metric for limit in limits}
    placement: _Placement = {
        "backend": ready.cell.backend,
        "device": ready.cell.device,
        "settings": spec.settings,
        "cpus": cpus,
    }

    def measure_footprint(artifact: Artifact) -> footprint.Report:
        if not metrics & {"rss", "added-rss"}:
            return footprint.START
        job = footprint.Job(artifact=artifact, **placement)
        report = run_in_child(job, footprint.START)
        raise_failure(report.failure)
        return report

    footprints = [measure_footprint(artifact) for artifact in (pair.baseline, pair.candidate)]
    report = alternation.START
    job = alternation.Job(
        baseline=pair.baseline,
        candidate=pair.candidate,
        images=ready.data.images,
        labels=ready.data.labels if prepare.reason_without_top1(ready) is None else None,
        preprocessing=ready.data.preprocessing_for(ready.cell.model.family),
        seconds=seconds if metrics & {"p50", "p99"} else None,
        answers="top1" in metrics,
        **placement,
    )
    if job.seconds is not None or job.answers:
        report = run_in_child(job, report)
        raise_failure(report.failure)
    return Readings(
        replicates=report.replicates,
        answers=report.answers,
        baseline_rss_bytes=footprints[0].peak_rss_bytes,
        candidate_rss_bytes=footprints[1].peak_rss_bytes,
        baseline_added_rss_bytes=footprints[0].added_rss_bytes,
        candidate_added_rss_bytes=footprints[1].added_rss_bytes,
        baseline_size_bytes=pair.baseline.path.stat().st_size,
        candidate_size_bytes=pair.candidate.path.stat().st_size,
    )


class _Placement(TypedDict):
    """Where and how a job runs."""

    backend: str
    device: str
    settings: Settings
    cpus: tuple[int, ...]
