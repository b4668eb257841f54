"""Which precision a runtime executed each layer in, weighted by Mult-Adds."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol, TypeVar

from mbbench.backend import Executed
from mbbench.models.cost import Layer
from mbbench.result import ExecutedInfo, PrecisionShare
from mbbench.spec import Precision

# Words in the types of nodes that move or convert tensors without computing anything.
_MOVE_WORDS = ("quantize", "reorder", "reformat", "transpose", "cast", "convert")
_DATA_TYPES = ("const", "constant", "input", "parameter", "result", "output")
_LOGITS = "logits"  # some runtimes name the last layer after the graph's output


class Node(Protocol):
    """The part that `Executed` and `NodeTime` have in common."""

    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def type(self) -> str: ...


_N = TypeVar("_N", bound=Node)


def audit(nodes: Sequence[Executed], layers: Sequence[Layer]) -> ExecutedInfo:
    """Return the share of Mult-Adds and the number of layers in each precision; `layers` are the network's, in order.

    A layer has the precision of the node that executes it (see `executing_node`), or `unknown` if the runtime reports
    no such node.
    """
    total = sum(layer.mult_adds for layer in layers)
    moves, computing = split_moves(nodes)
    shares: dict[str, tuple[int, int]] = {}
    fp32_layers: list[str] = []
    for layer in layers:
        node = executing_node(layer, computing, last=layer is layers[-1])
        precision = "unknown" if node is None else node.precision
        mult_adds, count = shares.get(precision, (0, 0))
        shares[precision] = (mult_adds + layer.mult_adds, count + 1)
        if precision == "fp32":
            fp32_layers.append(layer.name)
    return ExecutedInfo(
        shares=tuple(
            PrecisionShare(precision=precision, mult_adds_share=mult_adds / total, layers=count)
            for precision, (mult_adds, count) in sorted(shares.items(), key=lambda item: -item[1][0])
        ),
        fp32_layers=tuple(fp32_layers),
        moves=len(moves),
    )


def describe_fallback(info: ExecutedInfo, precision: Precision, allowed_fp32: Collection[str]) -> str | None:
    """Return what ran in another precision than `precision`, or None if nothing did.

    The layers named in `allowed_fp32` may run in fp32.
    """
    fallbacks = [
        f"{share.mult_adds_share * 100:.1f} % of Mult-Adds ({share.layers} layer{'s' * (share.layers > 1)}) ran in"
        f" {share.precision}"
        for share in info.shares
        if share.precision != precision
        and not (share.precision == "fp32" and set(info.fp32_layers) <= set(allowed_fp32))
    ]
    return "; ".join(fallbacks) or None


def split_moves(nodes: Sequence[_N]) -> tuple[list[_N], list[_N]]:
    """Return the nodes that move or convert tensors, and those that compute; drop constants, inputs and outputs."""
    moves = [node for node in nodes if _is_move(node)]
    return moves, [node for node in nodes if not _is_move(node) and node.type.lower() not in _DATA_TYPES]


def _is_move(node: Node) -> bool:
    return any(word in node.type.lower() for word in _MOVE_WORDS)


def executing_node(layer: Layer, computing: Sequence[_N], *, last: bool) -> _N | None:
    """Return the first node with a name that matches `layer`, or None. `last`: the layer computes the logits."""
    for node in computing:
        if any(name_matches(name, layer) or (last and name == _LOGITS) for name in node.names):
            return node
    return None


def name_matches(name: str, layer: Layer) -> bool:
    """Return whether `name` is the layer's name, or that of a tensor or node whose name begins with it.

    For `X.conv`, the names of `X.act` match too: a runtime that fuses a convolution with its activation may name the
    fused node after the activation.
    """
    activation = f"{layer.name.removesuffix('.conv')}.act" if layer.name.endswith(".conv") else layer.name
    return any(
        name == prefix or name.startswith((f"{prefix}.", f"{prefix}/", f"{prefix}_"))
        for prefix in (layer.name, activation)
    )
