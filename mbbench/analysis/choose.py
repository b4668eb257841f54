"""`mbbench choose`: which of the stored cells keep within limits, which of them nothing beats, and which to take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf

from mbbench.models import paper
from mbbench.result import Result
from mbbench.stats import Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """None is no limit. `min_top1` is a share, 0 to 1."""

    max_p99_ms: float | None = None
    min_top1: float | None = None
    max_rss_bytes: float | None = None
    max_size_bytes: float | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """What a cell is judged by; None is what was not measured, or not published."""

    result: Result
    p99_ms: float | None
    top1: float | None
    top1_ci95: Interval | None  # of a measured one
    rss_bytes: int | None
    size_bytes: int | None

    @property
    def costs(self) -> tuple[float, ...]:
        """The less the better; what is not known is worst."""
        known = (self.p99_ms, None if self.top1 is None else -self.top1, self.rss_bytes, self.size_bytes)
        return tuple(inf if value is None else value for value in known)


@dataclass(frozen=True, slots=True)
class Judged:
    """`lost_by`: the limits that the cell does not keep. `beaten_by`: one that is better and nowhere worse."""

    candidate: Candidate
    lost_by: tuple[str, ...]
    beaten_by: Candidate | None


@dataclass(frozen=True, slots=True)
class Choice:
    """`kept` and `lost` are in the order of latency, cells that failed last; `pick` is None if nothing is kept."""

    pick: Candidate | None
    kept: tuple[Judged, ...]
    lost: tuple[Judged, ...]


def choose(results: Sequence[Result], limits: Limits, *, published: bool) -> Choice:
    """Judge every result; `published` takes the released ImageNet checkpoints' top-1 in place of what was measured.

    The pick is the fastest by p99 of those whose top-1 cannot be told from the best that keeps within the limits: whose
    95 % interval reaches it. Published accuracies have no interval.
    """
    candidates = sorted(
        (_candidate(result, published) for result in results),
        key=lambda one: (one.result.failure is not None, one.costs),
    )
    losses = [tuple(_losses(candidate, limits, published)) for candidate in candidates]
    kept = [candidate for candidate, lost_by in zip(candidates, losses, strict=True) if not lost_by]
    return Choice(
        _pick(kept),
        tuple(_standing(kept)),
        tuple(Judged(one, lost_by, None) for one, lost_by in zip(candidates, losses, strict=True) if lost_by),
    )


def _candidate(result: Result, published: bool) -> Candidate:
    latency, accuracy = result.measured.latency, result.measured.accuracy
    top1, interval = result.top1(), None if accuracy is None else accuracy.top1_ci95
    if published:
        known = paper.published_top1(result.cell.model, result.cell.precision)
        top1, interval = None if known is None else known[0] / 100, None
    p99_ms = None if latency is None else latency.p99_ms
    return Candidate(result, p99_ms, top1, interval, result.peak_rss_bytes(), result.size_bytes())


def _losses(candidate: Candidate, limits: Limits, published: bool) -> Iterator[str]:
    result = candidate.result
    if result.failure is not None:
        yield f"failed: {result.failure.cause}"
        return
    p99_ms, top1, rss, size = candidate.p99_ms, candidate.top1, candidate.rss_bytes, candidate.size_bytes
    if limits.max_p99_ms is not None and (p99_ms is None or p99_ms > limits.max_p99_ms):
        why = result.reasons.get("latency.p99_ms", "was not measured")
        yield f"p99: {why}" if p99_ms is None else f"p99 {(p99_ms / limits.max_p99_ms - 1) * 100:.1f} % above"
    if limits.min_top1 is not None and (top1 is None or top1 < limits.min_top1):
        why = "is not published" if published else result.reasons.get("accuracy.top1", "was not measured")
        yield f"top-1: {why}" if top1 is None else f"top-1 {(limits.min_top1 - top1) * 100:.1f} points below"
    for name, value, limit in (("memory", rss, limits.max_rss_bytes), ("size", size, limits.max_size_bytes)):
        if limit is not None and (value is None or value > limit):
            yield f"{name}: was not measured" if value is None else f"{name} {(value / limit - 1) * 100:.1f} % above"


def _standing(kept: Sequence[Candidate]) -> Iterator[Judged]:
    """Each of `kept`, which go by costs: whoever beats one comes before it, and is itself in the Pareto set."""
    import numpy as np

    front: list[Candidate] = []
    costs = np.empty((len(kept), 4))  # the front's, in its first rows
    for candidate in kept:
        own = np.array(candidate.costs)
        rows = costs[: len(front)]
        beating = np.flatnonzero((rows <= own).all(axis=1) & (rows < own).any(axis=1))
        if not len(beating):
            costs[len(front)] = own
            front.append(candidate)
        yield Judged(candidate, (), front[beating[0]] if len(beating) else None)


def _pick(kept: Sequence[Candidate]) -> Candidate | None:
    best = max((candidate.top1 for candidate in kept if candidate.top1 is not None), default=None)
    near = [
        one for one in kept
        if best is None or (one.top1 is not None and (one.top1_ci95.high if one.top1_ci95 else one.top1) >= best)
    ]  # fmt: skip
    return min(near, key=lambda one: one.costs, default=None)
