"""`mbbench choose`: which stored cells are within limits, which of them are Pareto-optimal, and which one to pick."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf

from mbbench.models import paper
from mbbench.result import Result
from mbbench.stats import Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits that a cell must meet; None means no limit. `min_top1` is a share (0 to 1)."""

    max_p99_ms: float | None = None
    min_top1: float | None = None
    max_rss_bytes: float | None = None
    max_size_bytes: float | None = None
    max_added_rss_bytes: float | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A result and the four figures it is judged by; None for a figure that was not measured or not published."""

    result: Result
    p99_ms: float | None
    top1: float | None
    top1_ci95: Interval | None  # None for a published top-1
    rss_bytes: int | None
    size_bytes: int | None
    added_rss_bytes: int | None

    @property
    def costs(self) -> tuple[float, ...]:
        """p99, negative top-1, memory and size: lower is better, and an unknown figure is infinite."""
        costs = (self.p99_ms, None if self.top1 is None else -self.top1, self.rss_bytes, self.size_bytes)
        return tuple(inf if cost is None else cost for cost in costs)


@dataclass(frozen=True, slots=True)
class Assessment:
    """A candidate, the limits it violates, and a candidate that dominates it (better somewhere, worse nowhere).

    `excess`: how far it is beyond the limit that it misses most, as a share of that limit; infinite if unknown.
    """

    candidate: Candidate
    violations: tuple[str, ...]
    dominated_by: Candidate | None
    excess: float = 0.0


@dataclass(frozen=True, slots=True)
class MachineChoice:
    """The pick on one machine, or the cell nearest to the limits if none is within them."""

    pick: Candidate | None
    nearest: Assessment | None


@dataclass(frozen=True, slots=True)
class Choice:
    """The pick and all assessments, ordered by p99 with failed cells last. `pick` is None if no cell is within limits.

    Only cells within the limits are checked for dominance.
    """

    pick: Candidate | None
    within_limits: tuple[Assessment, ...]
    outside_limits: tuple[Assessment, ...]

    def by_machine(self) -> tuple[MachineChoice, ...]:
        """Return the choice on each machine, in the order of the best p99."""
        machines: dict[str, list[Assessment]] = {}
        for assessment in (*self.within_limits, *self.outside_limits):
            machines.setdefault(assessment.candidate.result.machine.id, []).append(assessment)
        choices = []
        for assessments in machines.values():
            pick = _pick([assessment.candidate for assessment in assessments if not assessment.violations])
            nearest = min(assessments, key=lambda assessment: assessment.excess)
            choices.append(MachineChoice(pick, nearest if pick is None else None))
        return tuple(choices)


def choose(results: Sequence[Result], limits: Limits, *, published: bool) -> Choice:
    """Assess every result and pick one.

    With `published`, the published top-1 of the released ImageNet checkpoints replaces the measured one. The pick has
    the lowest p99 of the cells whose top-1 cannot be distinguished from the best within the limits: the best lies
    within their 95 % interval. Published accuracies have no interval. Calls of different batch sizes are not
    comparable: only cells of the smallest batch size can be picked.
    """
    candidates = sorted(
        (_candidate(result, published) for result in results),
        key=lambda candidate: (candidate.result.failure is not None, candidate.costs),
    )
    batch = min((candidate.result.settings.batch for candidate in candidates), default=1)
    violations = [tuple(_violations(candidate, limits, batch, published)) for candidate in candidates]
    assessed = list(zip(candidates, violations, strict=True))
    within_limits = [candidate for candidate, violated in assessed if not violated]
    return Choice(
        _pick(within_limits),
        tuple(_with_dominance(within_limits)),
        tuple(
            Assessment(candidate, violated, None, _excess(candidate, limits, batch))
            for candidate, violated in assessed
            if violated
        ),
    )


def _candidate(result: Result, published: bool) -> Candidate:
    latency, accuracy = result.measured.latency, result.measured.accuracy
    top1, interval = result.top1(), None if accuracy is None else accuracy.top1_ci95
    if published:
        publication = paper.published_top1(result.cell.model, result.cell.precision, result.cell.weights)
        top1, interval = None if publication is None else publication[0] / 100, None
    p99_ms = None if latency is None else latency.p99_ms
    return Candidate(
        result, p99_ms, top1, interval, result.peak_rss_bytes(), result.size_bytes(), result.added_rss_bytes()
    )


def _excess(candidate: Candidate, limits: Limits, batch: int) -> float:
    """Return the largest excess over a limit as a share of the limit; infinite for what cannot be picked at all."""
    if candidate.result.failure is not None or candidate.result.settings.batch != batch:
        return inf
    shares = [
        inf if value is None else value / limit - 1
        for value, limit in (
            (candidate.p99_ms, limits.max_p99_ms),
            (candidate.rss_bytes, limits.max_rss_bytes),
            (candidate.added_rss_bytes, limits.max_added_rss_bytes),
            (candidate.size_bytes, limits.max_size_bytes),
        )
        if limit is not None
    ]
    if limits.min_top1:
        shares.append(inf if candidate.top1 is None else 1 - candidate.top1 / limits.min_top1)
    return max(shares, default=0.0)


def _violations(candidate: Candidate, limits: Limits, batch: int, published: bool) -> Iterator[str]:
    """Yield one sentence per limit that the candidate violates; a figure that is unknown violates its limit."""
    result = candidate.result
    if result.failure is not None:
        yield f"{'not supported' if result.failure.is_unsupported else 'failed'}: {result.failure.cause}"
        return
    if result.settings.batch != batch:
        yield f"batch {result.settings.batch}: only calls of batch {batch} are compared"
    p99_ms, top1, rss, size = candidate.p99_ms, candidate.top1, candidate.rss_bytes, candidate.size_bytes
    if limits.max_p99_ms is not None and (p99_ms is None or p99_ms > limits.max_p99_ms):
        reason = result.reasons.get("latency.p99_ms", "not measured")
        yield f"p99: {reason}" if p99_ms is None else f"p99 {(p99_ms / limits.max_p99_ms - 1) * 100:.1f} % above limit"
    if limits.min_top1 is not None and (top1 is None or top1 < limits.min_top1):
        reason = "not published" if published else result.reasons.get("accuracy.top1", "not measured")
        yield f"top-1: {reason}" if top1 is None else f"top-1 {(limits.min_top1 - top1) * 100:.1f} points below limit"
    for name, value, limit in (
        ("memory", rss, limits.max_rss_bytes),
        ("added memory", candidate.added_rss_bytes, limits.max_added_rss_bytes),
        ("size", size, limits.max_size_bytes),
    ):
        if limit is not None and (value is None or value > limit):
            yield f"{name}: not measured" if value is None else f"{name} {(value / limit - 1) * 100:.1f} % above limit"


def _with_dominance(candidates: Sequence[Candidate]) -> Iterator[Assessment]:
    """Yield an assessment of each candidate.

    `candidates` are sorted by costs, so that whatever dominates a candidate comes before it. Comparing with the Pareto
    set is enough, since dominance is transitive.
    """
    import numpy as np

    front: list[Candidate] = []
    front_costs = np.empty((len(candidates), 4))  # filled up to len(front)
    for candidate in candidates:
        costs = np.array(candidate.costs)
        rows = front_costs[: len(front)]
        dominating = np.flatnonzero((rows <= costs).all(axis=1) & (rows < costs).any(axis=1))
        if not len(dominating):
            front_costs[len(front)] = costs
            front.append(candidate)
        yield Assessment(candidate, (), front[dominating[0]] if len(dominating) else None)


def _pick(candidates: Sequence[Candidate]) -> Candidate | None:
    best = max((candidate.top1 for candidate in candidates if candidate.top1 is not None), default=None)
    eligible = [candidate for candidate in candidates if best is None or _highest_top1(candidate) >= best]
    return min(eligible, key=lambda candidate: candidate.costs, default=None)


def _highest_top1(candidate: Candidate) -> float:
    """Return the upper end of the top-1's 95 % interval, or the top-1 itself; -inf if it is unknown."""
    if candidate.top1 is None:
        return -inf
    return candidate.top1_ci95.high if candidate.top1_ci95 else candidate.top1
