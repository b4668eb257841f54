"""Where a call's time goes: from the nodes that a runtime times to the model's layers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mbbench.analysis import executed
from mbbench.backend import NodeTime
from mbbench.models.cost import Layer
from mbbench.result import LayerTime, LayerTimes

_FP32_BYTES = 4
_BYTES = {"bf16": 2, "fp16": 2, "int8": 1}


def attribute(times: Sequence[NodeTime], runs: int, counted: Sequence[Layer], batch: int) -> LayerTimes:
    """The time of every layer that a node bears, by the names that `audit` knows it by; the rest is no layer's.

    A node that bears several layers is divided among them by Mult-Adds. One that bears none but is named after one, as
    an activation is that was not fused, adds to it.
    """
    moves, computing = executed.sort_out(times)
    found = [(layer, executed.bearer(layer, computing, last=layer is counted[-1])) for layer in counted]
    bearers = {layer: node for layer, node in found if node is not None}
    own_ms = dict.fromkeys(bearers, 0.0)
    other_ms = 0.0
    for node in computing:
        owners = [layer for layer, bearer in bearers.items() if bearer is node]
        owners = owners or [layer for layer in bearers if node.names and executed.stems_from(node.names[0], layer)]
        for layer in owners:
            own_ms[layer] += node.median_ms * layer.mult_adds / sum(owner.mult_adds for owner in owners)
        other_ms += 0.0 if owners else node.median_ms
    return LayerTimes(
        runs=runs,
        layers=tuple(
            LayerTime(
                name=layer.name,
                type=layer.type,
                precision=bearers[layer].precision,
                median_ms=median_ms,
                mult_adds=layer.mult_adds * batch,
                moved_bytes=_moved(layer, batch) * _BYTES.get(bearers[layer].precision, _FP32_BYTES),
            )
            for layer, median_ms in own_ms.items()
        ),
        moves_ms=sum(node.median_ms for node in moves),
        other_ms=other_ms,
    )


def _moved(layer: Layer, batch: int) -> int:
    """Elements of the input, the weights and the output."""
    return batch * (layer.inputs + math.prod(layer.output_shape)) + layer.weights
