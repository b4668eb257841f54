"""`mbbench explain`: why a lower precision is faster or not, from stored results of a cell in it and in fp32."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mbbench.machine import NATIVE_INSTRUCTIONS
from mbbench.models.cost import Cost
from mbbench.result import Result

_DEPTHWISE = "Conv DW"


@dataclass(frozen=True, slots=True)
class Explanation:
    """The reasons for a result's speed. `ratio`: its median latency over that in fp32; None if one is missing."""

    result: Result
    ratio: float | None
    reasons: tuple[str, ...]


def explain(reference: Result, result: Result, cost: Cost) -> Explanation:
    """Explain the speed of `result` compared with `reference`, the same cell in fp32; `cost` is the network's."""
    before, after = reference.measured.latency, result.measured.latency
    ratio = None if before is None or after is None else after.median_ms / before.median_ms
    return Explanation(result, ratio, tuple(_reasons(reference, result, cost)))


def _reasons(reference: Result, result: Result, cost: Cost) -> Iterator[str]:
    precision = result.cell.precision
    if result.failure is not None:
        yield f"the cell failed: {result.failure.cause}"
    if result.setup.on_cpu:
        instructions = NATIVE_INSTRUCTIONS[precision]
        present = [name for name in instructions if name in result.machine.isa]
        if present:
            yield f"the CPU has {precision} multiply-add instructions ({', '.join(present).upper()})"
        else:
            yield (
                f"the CPU has no {precision} multiply-add instructions ({', '.join(instructions).upper()}):"
                f" {precision} takes several instructions instead of one"
            )
    if precision == "int8" and result.artifact is not None:
        yield f"the artifact's Q/DQ dialect is {result.artifact.dialect}"
    if (executed := result.executed) is None:
        yield "the backend does not report what it executed"
    else:
        shares = ", ".join(
            f"{share.mult_adds_share * 100:.1f} % in {share.precision} ({share.layers} layer{'s' * (share.layers > 1)})"
            for share in executed.shares
        )
        yield f"executed Mult-Adds: {shares}"
        if executed.fp32_layers:
            yield f"layers left in fp32: {', '.join(executed.fp32_layers)}"
        moves = executed.moves - (0 if reference.executed is None else reference.executed.moves)
        yield f"nodes that only convert or reorder tensors: {executed.moves} ({moves:+d} compared with fp32)"
    mult_adds = sum(layer.mult_adds for layer in cost.layers if layer.type.startswith(_DEPTHWISE))
    if mult_adds:
        yield (
            f"depthwise layers have only {mult_adds / cost.mult_adds * 100:.1f} % of the Mult-Adds but move as much"
            " data as the other layers: memory bandwidth limits them, and a narrower type speeds them up only by moving"
            " less"
        )
