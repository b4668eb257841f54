"""How long each layer of the model takes, from the times of the nodes that a runtime executes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mbbench.analysis import executed
from mbbench.backend import NodeTime
from mbbench.models.cost import Layer
from mbbench.result import LayerTime, LayerTimes

_FP32_BYTES = 4
_BYTES = {"bf16": 2, "fp16": 2, "int8": 1}


def attribute(times: Sequence[NodeTime], runs: int, layers: Sequence[Layer], batch: int) -> LayerTimes:
    """Return the time of every layer that a node executes; layers are matched to nodes as in `executed.audit`.

    The time of a node that executes several layers is divided among them by Mult-Adds. A node that executes no layer
    but is named after one, such as an activation that was not fused, adds to that layer. Time that belongs to no layer
    is reported separately. Layers without a node are left out. `runs`: the number of calls behind each median.
    """
    moves, computing = executed.split_moves(times)
    matches = [(layer, executed.executing_node(layer, computing, last=layer is layers[-1])) for layer in layers]
    node_of = {layer: node for layer, node in matches if node is not None}
    layer_ms = dict.fromkeys(node_of, 0.0)
    other_ms = 0.0
    for node in computing:
        owners = [layer for layer, layer_node in node_of.items() if layer_node is node]
        owners = owners or [layer for layer in node_of if node.names and executed.name_matches(node.names[0], layer)]
        for layer in owners:
            layer_ms[layer] += node.median_ms * layer.mult_adds / sum(owner.mult_adds for owner in owners)
        other_ms += 0.0 if owners else node.median_ms
    return LayerTimes(
        runs=runs,
        layers=tuple(
            LayerTime(
                name=layer.name,
                type=layer.type,
                precision=node_of[layer].precision,
                median_ms=median_ms,
                mult_adds=layer.mult_adds * batch,
                moved_bytes=_moved_elements(layer, batch) * _BYTES.get(node_of[layer].precision, _FP32_BYTES),
            )
            for layer, median_ms in layer_ms.items()
        ),
        moves_ms=sum(node.median_ms for node in moves),
        other_ms=other_ms,
    )


def _moved_elements(layer: Layer, batch: int) -> int:
    """Return the number of elements of the input, the weights and the output."""
    return batch * (layer.inputs + math.prod(layer.output_shape)) + layer.weights
