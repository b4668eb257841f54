"""Freeing a graph from the batch size for which its shapes were computed: any number of images, each on its own."""

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

Shapes = Mapping[str, Sequence[int]]  # of every tensor, for that batch size


def free(graph: onnx.GraphProto, shapes: Shapes, size: int) -> None:
    """Rewrite the nodes that name the batch size, `size`, for which a graph was exported.

    A reshape keeps whatever batch arrives, and a resize names height and width only. A constant that repeats itself for
    every image is kept once. One that is joined to every image, as a transformer's class token, becomes padding and a
    sum. Raises `UsageError` if a constant is joined in another way.
    """
    _keep_once(graph, size)
    _drop_strided_copies(graph, shapes, size)
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in list(graph.node):
        if node.op_type == "Concat":
            _join_by_padding(graph, node, constants, shapes)
        elif node.op_type == "Resize" and len(node.input) > 3 and node.input[3] in constants:
            _resize_images(graph, node, constants[node.input[3]])
        elif node.op_type in ("Reshape", "Expand") and node.input[1] in constants:
            source, target = shapes.get(node.input[0]), shapes.get(node.output[0])
            if not source or not target or not all(target):
                continue
            axis = _batch_axis(source, target, size)
            if axis is not None:
                free_size = -1 if node.op_type == "Reshape" else 1  # an expansion to 1 keeps the size
                values = [free_size if index == axis else side for index, side in enumerate(target)]
                node.input[1] = _constant(graph, f"{node.output[0]}.shape", _int64(values))


def _batch_axis(source: Sequence[int], target: Sequence[int], size: int) -> int | None:
    """Return the axis of a reshape's target that holds the batch, alone or merged with others; None if none does."""
    if size > 1:
        axes = [index for index, side in enumerate(target) if side % size == 0]
        return axes[0] if axes else None
    merged = [list(accumulate(shape, mul)) for shape in (source, target)]
    first = (source[0] == 1 and target[0] in merged[0]) or (target[0] == 1 and source[0] in merged[1])
    return 0 if first else None


def _keep_once(graph: onnx.GraphProto, size: int) -> None:
    """Reduce constants with the same values for each of `size` images to one row, which broadcasts to any batch."""
    import numpy as np
    import onnx

    for tensor in graph.initializer:
        if size > 1 and len(tensor.dims) > 1 and tensor.dims[0] == size:
            array = onnx.numpy_helper.to_array(tensor)
            if np.array_equal(array, np.broadcast_to(array[:1], array.shape)):
                tensor.CopyFrom(onnx.numpy_helper.from_array(array[:1].copy(), tensor.name))


def _resize_images(graph: onnx.GraphProto, node: onnx.NodeProto, sizes: onnx.TensorProto) -> None:
    """Name only height and width of a resize to fixed sizes (N, C, H, W)."""
    import onnx

    values = onnx.numpy_helper.to_array(sizes)
    if len(values) == 4 and not any(entry.name == "axes" for entry in node.attribute):
        node.input[3] = _constant(graph, f"{node.output[0]}.sizes", _int64(values[2:].tolist()))
        node.attribute.append(onnx.helper.make_attribute("axes", [2, 3]))


def _drop_strided_copies(graph: onnx.GraphProto, shapes: Shapes, size: int) -> None:
    """Replace a flattening and a gather of all elements in order, PyTorch's strided copy, by a reshape."""
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
        is_flat = axis == 0 and len(shapes.get(node.input[0], ())) == 1
        if (
            source and is_flat and source[0] == indices.shape[0] == size and indices.size == np.prod(source)
            and np.array_equal(indices.ravel(), np.arange(indices.size))
        ):  # fmt: skip
            shape = _constant(graph, f"{node.output[0]}.shape", _int64([-1, *indices.shape[1:]]))
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
        np.zeros((1, *shape[1:]), np.float32) if name in tensors else onnx.numpy_helper.to_array(constants[name])
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
