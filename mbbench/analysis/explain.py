"""Why a lower precision is faster here, or is not: from stored results of the same model in fp32 and in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mbbench.machine import NATIVE
from mbbench.models.cost import Cost
from mbbench.result import Result

_DEPTHWISE = "Conv DW"


@dataclass(frozen=True, slots=True)
class Explanation:
    """`ratio`: the median latency over fp32's; None where either is missing."""

    result: Result
    ratio: float | None
    reasons: tuple[str, ...]


def pairs(results: Sequence[Result]) -> Iterator[tuple[Result, Result]]:
    """(fp32, other) for the newest result of each cell in another precision with an fp32 one beside it."""
    newest = {(r.cell.model, r.cell.backend, r.cell.device, r.cell.precision): r for r in results}
    for (model, backend, device, precision), result in newest.items():
        reference = newest.get((model, backend, device, "fp32"))
        if precision != "fp32" and reference is not None:
            yield reference, result


def explain(reference: Result, result: Result, cost: Cost) -> Explanation:
    """What the stored figures say about the speed of `result` against `reference`, the same cell in fp32."""
    before, after = reference.measured.latency, result.measured.latency
    ratio = None if before is None or after is None else after.median_ms / before.median_ms
    return Explanation(result, ratio, tuple(_reasons(reference, result, cost)))


def _reasons(reference: Result, result: Result, cost: Cost) -> Iterator[str]:
    precision = result.cell.precision
    if result.failure is not None:
        yield f"it failed: {result.failure.cause}"
    if reference.machine.id != result.machine.id:
        yield "the two were measured on different machines, so that their ratio says little"
    needed = NATIVE[precision]
    found = [name for name in needed if name in result.machine.isa]
    if result.machine.gpus and result.cell.device.startswith("cuda"):
        pass
    elif found:
        yield f"the CPU multiplies {precision} natively ({', '.join(found).upper()})"
    else:
        missing = ", ".join(needed).upper()
        yield f"the CPU has none of {missing}: {precision} takes several instructions where one of these would do"
    if precision == "int8" and result.artifact is not None:
        yield f"the file's Q/DQ dialect is {result.artifact.dialect}"
    if (executed := result.executed) is None:
        yield "the backend does not tell what it executed"
    else:
        shares = ", ".join(
            f"{share.mult_adds_share:.1%} in {share.precision} ({share.layers} layers)" for share in executed.shares
        )
        yield f"Mult-Adds executed: {shares}"
        if executed.fp32_layers:
            yield f"left in fp32: {', '.join(executed.fp32_layers)}"
        moves = executed.moves - (0 if reference.executed is None else reference.executed.moves)
        yield f"nodes that only convert or reorder tensors: {executed.moves} ({moves:+d} against fp32)"
    mult_adds = sum(layer.mult_adds for layer in cost.layers if layer.type.startswith(_DEPTHWISE))
    if mult_adds:
        yield (
            f"depthwise layers hold {mult_adds / cost.mult_adds:.1%} of Mult-Adds, yet read and write as much as the"
            " others: memory binds them, and narrower types help them only as it shrinks"
        )
