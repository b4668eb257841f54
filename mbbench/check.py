"""`mbbench keep` and `mbbench check`: baseline and candidate measured in alternation, in one run on one machine."""

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
from mbbench.compare.record import SCHEMA, CellVerdict, Checked
from mbbench.errors import InconclusiveError, MbbenchError, RegressionError
from mbbench.events import Announce, Measuring, Notify
from mbbench.machine import fingerprint, pick_cpus
from mbbench.measure.jobs import footprint
from mbbench.measure.jobs import pair as alternation
from mbbench.measure.process import require, run_in_child
from mbbench.models import normalization
from mbbench.result import Failure
from mbbench.spec import Cell, RunSpec, Settings


@dataclass(frozen=True, slots=True)
class _Pair:
    """A cell's two artifacts, and what its rounds have measured of them."""

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
        """What the rounds so far say of each limit's metric."""
        floors = {} if self.noise is None else self.noise.floors
        known_from = 0 if self.noise is None else self.noise.rounds
        return [
            gate.finding(limit, self.rounds, floors[limit.metric].within, known_from)
            if limit.metric in floors
            else gate.finding(limit, self.rounds)
            for limit in limits
        ]


def keep(spec: RunSpec, folder: Path, announce: Announce) -> None:
    """Make every cell's artifact and keep it in `folder`. Raises `MbbenchError`; then nothing is kept."""
    made = []
    for item in _ready(spec, announce):
        exported = prepare.make(spec, item, announce)
        made.append((item.cell, exported, prepare.versions([item])))
    baseline.keep(folder, made)


def check(spec: RunSpec, folder: Path, limits: Sequence[Limit], seconds: float, notify: Notify) -> Checked:
    """Judge every cell of `spec` against its baseline in `folder`, with `seconds` of timing a cell and round.

    A cell that seems to be worse than its limits allow is measured a second time, in new processes. Raises
    `MbbenchError` for what cannot be prepared; a cell that fails while it is measured leaves the others their verdicts.
    """
    machine = fingerprint()
    cpus = pick_cpus(spec.settings.threads)
    kept = baseline.load(folder)
    pairs = []
    for item in _ready(spec, notify):
        before = baseline.find(kept, folder, item.cell, spec.settings.batch)
        exported = prepare.make(spec, item, notify)
        after = exported.artifact(item.cell.model, spec.settings.batch, item.cell.precision)
        known = noise.load(machine, item.cell, spec.settings.threads, spec.settings.batch)
        pairs.append(_Pair(item, before, after, known))

    def measure(chosen: Sequence[_Pair]) -> None:
        for index, pair in enumerate(chosen, 1):
            notify(Measuring(pair.ready.cell, index, len(chosen)))
            try:
                pair.rounds.append(_readings(spec, pair, limits, seconds, cpus))
            except MbbenchError as error:
                pair.errors.append(error)

    before_all = doctor.snapshot()
    different = [pair for pair in pairs if not pair.same_file]
    measure(different)
    measure([pair for pair in different if not pair.errors and gate.in_doubt(pair.findings(limits))])
    judged = iter(gate.judge([pair.findings(limits) for pair in different if not pair.errors]))
    cells = tuple(
        CellVerdict(
            cell=pair.ready.cell,
            baseline_sha256=pair.baseline.sha256,
            candidate_sha256=pair.candidate.sha256,
            rounds=tuple(pair.rounds),
            verdicts=() if pair.errors else _unchanged(pair, limits) if pair.same_file else next(judged),
            noise=pair.noise,
            failure=Failure.of(pair.errors[0]) if pair.errors else None,
        )
        for pair in pairs
    )
    conditions = doctor.judge(machine, before_all, doctor.snapshot())
    return Checked(
        schema=SCHEMA,
        time_utc=_now(),
        machine=machine,
        versions=prepare.versions([pair.ready for pair in pairs]),
        conditions=conditions,
        cells=cells,
    )


def calibrate(spec: RunSpec, rounds: int, seconds: float, notify: Notify) -> Iterator[tuple[Cell, Noise]]:
    """Compare every cell's artifact with itself so many times, and remember what that shows of this machine."""
    machine = fingerprint()
    cpus = pick_cpus(spec.settings.threads)
    wanted = changes.limits([limit for limit in changes.DEFAULTS if limit.partition(":")[0] in noise.METRICS])
    for item in _ready(spec, notify):
        exported = prepare.make(spec, item, notify)
        own = exported.artifact(item.cell.model, spec.settings.batch, item.cell.precision)
        readings = []
        for index in range(1, rounds + 1):
            notify(Measuring(item.cell, index, rounds))
            readings.append(_readings(spec, _Pair(item, own, own, None), wanted, seconds, cpus))
        found = noise.learn(readings, seconds, _now())
        noise.save(found, machine, item.cell, spec.settings.threads, spec.settings.batch)
        yield item.cell, found


def verdict(checked: Checked, *, strict: bool) -> None:
    """Raise what the outcome amounts to, a regression before a failure; return if all is well."""
    bad = [cell for cell in checked.cells if cell.outcome == checked.outcome]
    count = f"{len(bad)} of {len(checked.cells)} cells"
    if checked.outcome == "fail":
        raise RegressionError(f"{count} got worse than allowed", "see the table, or raise --fail-on")
    for cell in checked.cells:
        require(cell.failure)
    if checked.outcome == "inconclusive" and strict:
        raise InconclusiveError(
            f"{count} could not be shown to be within their limits",
            "raise --time or --fail-on, or use a quieter machine",
        )


def _unchanged(pair: _Pair, limits: Sequence[Limit]) -> tuple[Verdict, ...]:
    """Of one and the same file: there is nothing to measure."""
    size = float(pair.candidate.path.stat().st_size)

    def verdict(limit: Limit) -> Verdict:
        value = size if limit.metric == "size" else None
        reason = "the artifact is the baseline's, byte for byte"
        change = Change(metric=limit.metric, baseline=value, candidate=value, change=0.0, reason=reason)
        return Verdict(change=change, limit=limit, outcome="pass")

    return tuple(map(verdict, limits))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _ready(spec: RunSpec, announce: Announce) -> list[Ready]:
    """All cells, or the reason of the first that cannot be prepared."""
    found = prepare.prepare_all(spec, announce)
    for item in found:
        if isinstance(item, Unavailable):
            raise item.error
    return [item for item in found if isinstance(item, Ready)]


def _readings(spec: RunSpec, pair: _Pair, limits: Sequence[Limit], seconds: float, cpus: tuple[int, ...]) -> Readings:
    """One round: a process for the alternating calls and the answers, and one for each artifact's memory."""
    ready, asked = pair.ready, {limit.metric for limit in limits}
    where: _Where = {
        "backend": ready.cell.backend,
        "device": ready.cell.device,
        "settings": spec.settings,
        "cpus": cpus,
    }

    def peak(artifact: Artifact) -> int | None:
        job = footprint.Job(artifact=artifact, **where)
        held = run_in_child(job, footprint.START)
        require(held.failure)
        return held.peak_rss_bytes

    peaks = [peak(artifact) if "rss" in asked else None for artifact in (pair.baseline, pair.candidate)]
    report = alternation.START
    job = alternation.Job(
        baseline=pair.baseline,
        candidate=pair.candidate,
        images=ready.data.images,
        labels=ready.data.labels if prepare.reason_without_top1(ready) is None else None,
        normalization=normalization(ready.cell.model.family),
        seconds=seconds if asked & {"p50", "p99"} else None,
        answers="top1" in asked,
        **where,
    )
    if job.seconds is not None or job.answers:
        report = run_in_child(job, report)
        require(report.failure)
    return Readings(
        replicates=report.replicates,
        answers=report.answers,
        baseline_rss_bytes=peaks[0],
        candidate_rss_bytes=peaks[1],
        baseline_size_bytes=pair.baseline.path.stat().st_size,
        candidate_size_bytes=pair.candidate.path.stat().st_size,
    )


class _Where(TypedDict):
    backend: str
    device: str
    settings: Settings
    cpus: tuple[int, ...]
