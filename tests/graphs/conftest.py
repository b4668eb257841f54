"""Small ONNX files, as exporters of other frameworks write them."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

Make = Callable[..., onnx.ModelProto]


@pytest.fixture(scope="session")
def make() -> Make:
    """Return a function that makes a classifier: a convolution, `middle`, global pooling, a fully connected layer."""
    return _make


def _make(
    *,
    middle: Sequence[onnx.NodeProto] = (),
    constants: dict[str, Any] | None = None,
    shape: Sequence[int | str] = (1, 3, 8, 8),
    input_type: int = TensorProto.FLOAT,
    before: Sequence[onnx.NodeProto] = (),
    after: Sequence[onnx.NodeProto] = (),
    output_shape: Sequence[int | str] = (1, 5),
    opset: int = 13,
    channels: int = 4,
) -> onnx.ModelProto:
    """Nodes of `before` lead from `pixels` to `x`, of `middle` from `a` to `b`, of `after` from `scores` to `out`."""
    rng = np.random.default_rng(0)
    arrays = {
        "w": rng.normal(0, 0.3, (4, 3, 3, 3)).astype(np.float32),
        "fc": rng.normal(0, 0.3, (channels, 5)).astype(np.float32),
        "fb": rng.normal(0, 0.3, 5).astype(np.float32),
        **(constants or {}),
    }
    nodes = [
        *before,
        helper.make_node(
            "Conv", ["x" if before else "pixels", "w"], ["a" if middle else "b"], "/body/conv", pads=[1] * 4
        ),
        *middle,
        helper.make_node("GlobalAveragePool", ["b"], ["p"], "/pool"),
        helper.make_node("Flatten", ["p"], ["f"], "/flatten"),
        helper.make_node("Gemm", ["f", "fc", "fb"], ["scores" if after else "out"], "/head/fc"),
        *after,
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("pixels", input_type, list(shape))],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, list(output_shape))],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    return model
