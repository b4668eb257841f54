"""Freeing a graph from the batch size that it was exported for: every image is computed alone, whatever the batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from operator import mul
from typing import TYPE_CHECKING

from mbbench.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from numpy.typing import NDArray

Shapes = Mapping[str, Sequence[int]]  # of every tensor, for a batch of one image


def free(graph: onnx.GraphProto, shapes: Shapes) -> None:
    """Rewrite the nodes of a graph for one image that name its batch size.

    A reshape keeps whatever batch arrives. A constant joined to an image, as a transformer's class token, is padded
    space with the constant added. Raises `UsageError` if a constant is joined in another way.
    """
    _drop_strided_copies(graph, shapes)
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in list(graph.node):
        if node.op_type == "Concat":
            _join_by_padding(graph, node, constants, shapes)
        elif node.op_type == "Reshape" and node.input[1] in constants:
            source, target = shapes.get(node.input[0]), shapes.get(node.output[0])
            if source and target and all(target) and _keeps_batch_first(source, target):
                node.input[1] = _constant(graph, f"{node.output[0]}.shape", _int64([-1, *target[1:]]))


def _keeps_batch_first(source: Sequence[int], target: Sequence[int]) -> bool:
    """Return whether a reshape of a batch of 1 leaves the batch first, alone or merged with what follows it."""
    merged = [list(accumulate(shape, mul)) for shape in (source, target)]
    if source[0] == 1 and target[0] == 1:
        return True
    return (source[0] == 1 and target[0] in merged[0]) or (target[0] == 1 and source[0] in merged[1])


def _drop_strided_copies(graph: onnx.GraphProto, shapes: Shapes) -> None:
    """Replace a flattening and a gather of all elements in order, PyTorch's strided copy of one image, by a reshape."""
    import numpy as np
    import onnx

    constants = {tensor.name: tensor for tensor in graph.initializer}
    producers = {output: node for node in graph.node for output in node.output}
    for node in list(graph.node):
        flat = producers.get(node.input[0]) if node.op_type == "Gather" else None
        if flat is None or flat.op_type != "Reshape" or node.input[1] not in constants:
            continue
        source, axis = shapes.get(flat.input[0]), next((entry.i for entry in node.attribute if entry.name == "axis"), 0)
        indices = onnx.numpy_helper.to_array(constants[node.input[1]])
        in_order = np.array_equal(indices.ravel(), np.arange(indices.size))
        if source and axis == 0 and len(shapes.get(node.input[0], ())) == 1 and source[0] == indices.shape[0] == 1:
            if not in_order or indices.size != np.prod(source):
                continue
            shape = _constant(graph, f"{node.output[0]}.shape", _int64(indices.shape))
            del node.attribute[:]
            node.op_type, node.input[:] = "Reshape", [flat.input[0], shape]
            if not any(flat.output[0] in user.input for user in graph.node):
                graph.node.remove(flat)


def _join_by_padding(
    graph: onnx.GraphProto, node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto], shapes: Shapes
) -> None:
    """Replace a Concat of constants and one tensor by a Pad of the tensor and an Add, which broadcast to any batch."""
    import numpy as np
    import onnx

    joined = [name for name in node.input if name in constants]
    if not any(constants[name].dims[:1] == [1] for name in joined):
        return
    tensors = [name for name in node.input if name not in constants]
    (axis,) = (entry.i for entry in node.attribute if entry.name == "axis")
    shape = shapes.get(tensors[0]) if len(tensors) == 1 else None
    if not shape or axis % len(shape) == 0:
        raise UsageError(
            f"{node.name or node.op_type} joins a constant to every image, which is not supported",
            "export it for any batch size",
        )
    arrays = [
        np.zeros(shape, np.float32) if name in tensors else onnx.numpy_helper.to_array(constants[name])
        for name in node.input
    ]
    place = list(node.input).index(tensors[0])
    axis %= len(shape)
    before, after = (sum(array.shape[axis] for array in part) for part in (arrays[:place], arrays[place + 1 :]))
    pads = _int64([side if index == axis else 0 for side in (before, after) for index in range(len(shape))])
    output = node.output[0]
    padded, addend = f"{output}/pad", _constant(graph, f"{output}.joined", np.concatenate(arrays, axis))
    nodes = [
        onnx.helper.make_node("Pad", [tensors[0], _constant(graph, f"{padded}.pads", pads)], [padded], padded),
        onnx.helper.make_node("Add", [padded, addend], [output], node.name),
    ]
    index = list(graph.node).index(node)
    graph.node.remove(node)
    for offset, new in enumerate(nodes):
        graph.node.insert(index + offset, new)


def _constant(graph: onnx.GraphProto, name: str, values: NDArray[np.generic]) -> str:
    import onnx

    graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    return name


def _int64(values: Sequence[int]) -> NDArray[np.int64]:
    import numpy as np

    return np.array(values, np.int64)
