"""Conversion of an artifact to an ExecuTorch program for the XNNPACK delegate."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mbbench.backend import Artifact
from mbbench.graphs.fx import to_module

if TYPE_CHECKING:
    from torch import fx


def lower(artifact: Artifact, batches: Mapping[str, int]) -> Any:
    """Return a program with a method for each of `batches` (name -> batch size).

    The methods share their weights, and copy neither images nor logits.
    """
    import onnx
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import ExecutorchBackendConfig, to_edge_transform_and_lower
    from executorch.exir.passes import MemoryPlanningPass

    module = to_module(onnx.load(artifact.path))
    _adapt(module)
    methods = {
        name: torch.export.export(module, (torch.zeros(batch, *artifact.input_shape[1:]),))
        for name, batch in batches.items()
    }
    planning = MemoryPlanningPass(alloc_graph_input=False, alloc_graph_output=False)
    return to_edge_transform_and_lower(methods, partitioner=[XnnpackPartitioner()]).to_executorch(
        ExecutorchBackendConfig(memory_planning_pass=planning)
    )


def _adapt(module: fx.GraphModule) -> None:
    """Rewrite a quantized graph in the form that XNNPACK executes, with the same scales.

    The Q/DQ pair after padding is removed, so that convolutions pad by themselves. The inputs of a concatenation get
    the scale of its result. The last layer, whose result stays float, chooses the scale of its input for every image:
    XNNPACK has no other integer product with a float result.
    """
    import torch
    from torch.nn import functional

    graph, operators = module.graph, torch.ops.quantized_decomposed
    quantize, dequantize = operators.quantize_per_tensor.default, operators.dequantize_per_tensor.default
    for node in graph.nodes:
        if node.target is dequantize and node.args[0].args[0].target is functional.pad:
            node.replace_all_uses_with(node.args[0].args[0])
        elif node.target is torch.cat and (user := next(iter(node.users))).target is quantize:
            limits = user.args[1:]
            with graph.inserting_before(node):
                integers = [graph.call_function(quantize, (part, *limits)) for part in node.args[0]]
                node.args = ([graph.call_function(dequantize, (part, *limits)) for part in integers], node.args[1])
    last: Any = graph.output_node().args[0]
    if last.target is functional.linear and last.args[1].target is operators.dequantize_per_channel.default:
        features, limits = last.args[0], (-128, 127, torch.int8)
        with graph.inserting_before(last):
            chosen = graph.call_function(operators.choose_qparams_per_token_asymmetric.default, (features, torch.int8))
            scales = [graph.call_function(operator.getitem, (chosen, index)) for index in range(2)]
            rounded = graph.call_function(operators.quantize_per_token.default, (features, *scales, *limits))
            floats = graph.call_function(
                operators.dequantize_per_token.default, (rounded, *scales, *limits, torch.float32)
            )
        last.replace_input_with(features, floats)
    graph.eliminate_dead_code()
    module.recompile()
