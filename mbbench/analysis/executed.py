"""What precision a runtime really executed in, layer by layer, weighed by Mult-Adds."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol, TypeVar

from mbbench.backend import Executed
from mbbench.models.cost import Layer
from mbbench.result import ExecutedInfo, PrecisionShare
from mbbench.spec import Precision

# What moves or converts tensors and computes nothing.
_MOVES = ("quantize", "reorder", "reformat", "transpose", "cast", "convert")
_DATA = ("const", "constant", "input", "parameter", "result", "output")
_LOGITS = "logits"  # some runtimes call the last layer by the graph's output


class Node(Protocol):
    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def type(self) -> str: ...


_N = TypeVar("_N", bound=Node)


def audit(executed: Sequence[Executed], counted: Sequence[Layer]) -> ExecutedInfo:
    """The share of Mult-Adds and the layers in each precision; `counted` are the network's layers in order.

    A layer belongs to the executed node that bears its name, or names of tensors or nodes that begin with it. One that
    no node bears is `unknown`: the runtime does not say.
    """
    total = sum(layer.mult_adds for layer in counted)
    moves, computing = sort_out(executed)
    shares: dict[str, tuple[int, int]] = {}
    slow: list[str] = []
    for layer in counted:
        node = bearer(layer, computing, last=layer is counted[-1])
        precision = "unknown" if node is None else node.precision
        mult_adds, layers = shares.get(precision, (0, 0))
        shares[precision] = (mult_adds + layer.mult_adds, layers + 1)
        if precision == "fp32":
            slow.append(layer.name)
    return ExecutedInfo(
        shares=tuple(
            PrecisionShare(precision=name, mult_adds_share=mult_adds / total, layers=layers)
            for name, (mult_adds, layers) in sorted(shares.items(), key=lambda item: -item[1][0])
        ),
        fp32_layers=tuple(slow),
        moves=len(moves),
    )


def fell_back(info: ExecutedInfo, wanted: Precision, kept: Collection[str]) -> str | None:
    """Why the cell did not run in `wanted` but for the layers in `kept`; None if it did."""
    missing = [
        f"{share.mult_adds_share:.1%} of Mult-Adds ({share.layers} layers) ran in {share.precision}"
        for share in info.shares
        if share.precision != wanted and not (share.precision == "fp32" and set(info.fp32_layers) <= set(kept))
    ]
    return "; ".join(missing) or None


def sort_out(nodes: Sequence[_N]) -> tuple[list[_N], list[_N]]:
    """The nodes that move or convert tensors, and those that compute; neither holds the data's own nodes."""
    moves = [node for node in nodes if any(word in node.type.lower() for word in _MOVES)]
    return moves, [node for node in nodes if node not in moves and node.type.lower() not in _DATA]


def bearer(layer: Layer, computing: Sequence[_N], *, last: bool) -> _N | None:
    """The node that the layer belongs to; `last`: it gives the logits."""
    for node in computing:
        if any(stems_from(own, layer) or (last and own == _LOGITS) for own in node.names):
            return node
    return None


def stems_from(name: str, layer: Layer) -> bool:
    """A runtime that fuses a block's convolution with its activation may call the whole by the latter's name."""
    fused = f"{layer.name.removesuffix('.conv')}.act" if layer.name.endswith(".conv") else layer.name
    return any(name == own or name.startswith((f"{own}.", f"{own}/", f"{own}_")) for own in (layer.name, fused))
