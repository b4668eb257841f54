"""A folded PyTorch module as an fp32 ONNX graph, its nodes and tensors named after the module's layers."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx
    from torch import nn

_OPSET = 18
_TRACED_IMAGES = 2  # in the batch that the exporter traces


def to_onnx(module: nn.Module, resolution: int) -> onnx.ModelProto:
    """Return the graph of a folded module: input `images` (N, 3, R, R) with N symbolic, output `logits`.

    A module that was made from a graph (`graphs.fx`) has that graph, with its present parameters.
    """
    import torch

    if isinstance(module, torch.fx.GraphModule) and "onnx" in module.meta:
        return with_parameters(module.meta["onnx"], module)

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with _out_of_place(module), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter uses functions that it deprecates itself
        program = torch.onnx.export(
            module,
            (torch.zeros(_TRACED_IMAGES, 3, resolution, resolution),),
            dynamo=True,
            verbose=False,
            opset_version=_OPSET,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("N")},),
        )
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    _name_after_modules(model.graph)
    return model


@contextlib.contextmanager
def _out_of_place(module: nn.Module) -> Iterator[None]:
    """Turn in-place activations off within the block: they double the exporter's time and do not change the graph."""
    from torch import nn

    layers = [layer for layer in module.modules() if isinstance(layer, nn.ReLU | nn.ReLU6) and layer.inplace]
    for layer in layers:
        layer.inplace = False
    try:
        yield
    finally:
        for layer in layers:
            layer.inplace = True


def with_parameters(model: onnx.ModelProto, module: nn.Module) -> onnx.ModelProto:
    """Return the graph `to_onnx` would give for `module`, from that of a module with other parameters.

    The modules must not differ in anything else. This saves an export, which takes seconds.
    """
    import onnx

    result = onnx.ModelProto()
    result.CopyFrom(model)
    tensors = {tensor.name: tensor for tensor in result.graph.initializer}
    nodes = {node.name: node for node in result.graph.node}
    for name, parameter in module.state_dict().items():
        layer, _, kind = name.rpartition(".")
        if layer not in nodes or kind not in ("weight", "bias"):
            continue
        tensor = tensors.get(name)
        if tensor is None:  # the exporter drops a bias of zeros
            if not parameter.any():
                continue
            nodes[layer].input.append(name)
            tensor = result.graph.initializer.add()
        tensor.CopyFrom(onnx.numpy_helper.from_array(parameter.detach().numpy(), name))
    return result


def _name_after_modules(graph: onnx.GraphProto) -> None:
    """Name nodes and tensors after the module they come from, and drop the exporter's metadata, which holds file paths.

    A module's last node and its output get the module's name (`blocks.0.1.conv`). Earlier nodes of the module get that
    name with their operator's after a slash, and a number if there are several.
    """
    import ast

    last: dict[str, str] = {}
    for node in graph.node:
        metadata = {entry.key: entry.value for entry in node.metadata_props}
        scopes = [scope for scope in ast.literal_eval(metadata.get("pkg.torch.onnx.name_scopes", "[]"))[:-1] if scope]
        node.name = scopes[-1] if scopes else node.op_type
        last[node.name] = node.output[0]
    outputs = {value.name for value in graph.output}
    names: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for node in graph.node:
        if node.output[0] != last[node.name]:
            node.name = f"{node.name}/{node.op_type}"
            counts[node.name] += 1
            node.name += f"-{counts[node.name]}" if counts[node.name] > 1 else ""
        if node.output[0] not in outputs:
            names[node.output[0]] = node.name
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        del node.metadata_props[:]
    for value in (*graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del value.metadata_props[:]
    del graph.value_info[:], graph.metadata_props[:]
