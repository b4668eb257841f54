"""A folded PyTorch module as an fp32 ONNX graph, its nodes and tensors named after the module's layers."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx
    from torch import nn

_OPSET = 18
_EXAMPLES = 2  # images that the exporter traces


def to_onnx(module: nn.Module, resolution: int) -> onnx.ModelProto:
    """The graph of a folded module: input `images` (N, 3, R, R) with N symbolic, output `logits`."""
    import torch

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with _out_of_place(module), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter deprecates its own insides
        program = torch.onnx.export(
            module,
            (torch.zeros(_EXAMPLES, 3, resolution, resolution),),
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
    """Activations that write in place make the exporter twice as slow; the graph is the same."""
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
    """`to_onnx` of `module`, given that of a module that differs in its parameters alone: an export takes seconds."""
    import onnx

    own = onnx.ModelProto()
    own.CopyFrom(model)
    tensors = {tensor.name: tensor for tensor in own.graph.initializer}
    nodes = {node.name: node for node in own.graph.node}
    for name, parameter in module.state_dict().items():
        tensor = tensors.get(name)
        if tensor is None:  # the exporter drops a bias that is zero throughout
            nodes[name.removesuffix(".bias")].input.append(name)
            tensor = own.graph.initializer.add()
        tensor.CopyFrom(onnx.numpy_helper.from_array(parameter.detach().numpy(), name))
    return own


def _name_after_modules(graph: onnx.GraphProto) -> None:
    """Call nodes and tensors by the module they come from, and drop what else the exporter notes: it has paths in it.

    A module's last node gets the module's name (`blocks.0.1.conv`), and so does its output; a node before it gets its
    operator's after a slash.
    """
    import ast

    last: dict[str, str] = {}
    for node in graph.node:
        notes = {entry.key: entry.value for entry in node.metadata_props}
        scopes = [scope for scope in ast.literal_eval(notes.get("pkg.torch.onnx.name_scopes", "[]"))[:-1] if scope]
        node.name = scopes[-1] if scopes else node.op_type
        last[node.name] = node.output[0]
    outputs = {value.name for value in graph.output}
    names: dict[str, str] = {}
    for node in graph.node:
        if node.output[0] != last[node.name]:
            node.name = f"{node.name}/{node.op_type}"
        if node.output[0] not in outputs:
            names[node.output[0]] = node.name
    assert len(set(names.values())) == len(names)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        del node.metadata_props[:]
    for value in (*graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del value.metadata_props[:]
    del graph.value_info[:], graph.metadata_props[:]
