"""An fp32 ONNX graph with ranges for its activations as a Q/DQ graph, in the dialect in which a runtime is fast."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mbbench.backend import Dialect
from mbbench.compress.calibrate import Range, onnxruntime

if TYPE_CHECKING:
    import onnx

_WEIGHTED = ("Conv", "Gemm")
_ACTIVATIONS = ("Clip", "Relu")


def write(
    model: onnx.ModelProto,
    ranges: Mapping[str, Range],
    dialect: Dialect,
    *,
    keep: Collection[str] = (),
    per_channel: bool = True,
) -> onnx.ModelProto:
    """The graph with QuantizeLinear and DequantizeLinear around what shall run in 8 bits.

    `u8s8`: activations uint8 with a zero point, weights int8, biases int32: what CPUs multiply. `u8s8f`: the same, but
    what `floats` names stays in fp32, where ONNX Runtime is faster with it. For CPUs that add two
    products in 16 bits (`Machine.saturates_int8`): `u8u8`, the same weights as uint8 around 128, which ONNX Runtime
    widens first, and `u8s7`, weights within -64 to 64, since OpenVINO runs unsigned weights in fp32. `s8s8`:
    activations int8 symmetric, biases fp32: what TensorRT accepts. `s8s8f`: the same, but what `floats` names stays in
    fp32, where ncnn is faster with it.

    Weights are symmetric, one scale an output channel. The nodes called in `keep` stay in fp32. The logits are not
    quantized: 8 bits of them would make ties. Raises `BackendError` where ONNX Runtime, whose quantizer writes the
    graph, is not installed.
    """
    onnxruntime()
    import numpy as np
    import onnx
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.registry import QDQRegistry

    symmetric = dialect in ("s8s8", "s8s8f")
    own = onnx.shape_inference.infer_shapes(model)
    data = TensorsData(
        CalibrationMethod.MinMax, {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()}
    )
    with _without_warnings():
        quantizer = QDQQuantizer(
            own,
            per_channel,
            dialect == "u8s7",
            QuantType.QInt8,
            QuantType.QInt8 if symmetric else QuantType.QUInt8,
            data,
            [],
            [*keep, *floats(model, dialect)],
            list(QDQRegistry),
            {
                "ActivationSymmetric": symmetric,
                "WeightSymmetric": True,
                "QuantizeBias": not symmetric,
                "OpTypesToExcludeOutputQuantization": list(_WEIGHTED) if symmetric else ["Gemm"],
            },
        )
        quantizer.quantize_model()
    written: onnx.ModelProto = quantizer.model.model
    if dialect == "u8u8":
        _make_weights_unsigned(written.graph)
    return written


def _make_weights_unsigned(graph: onnx.GraphProto) -> None:
    """Every int8 tensor and its zero point of 0, shifted by 128."""
    import numpy as np
    import onnx

    for tensor in graph.initializer:
        if tensor.data_type == onnx.TensorProto.INT8:
            values = onnx.numpy_helper.to_array(tensor).astype(np.int16) + 128
            tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.uint8), tensor.name))


@contextmanager
def _without_warnings() -> Iterator[None]:
    """ONNX Runtime's quantizer warns through the root logger of what we do on purpose."""
    logger = logging.getLogger()
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def largest_weight(dialect: Dialect) -> int:
    """The largest integer that a weight becomes."""
    return 64 if dialect == "u8s7" else 127


def floats(model: onnx.ModelProto, dialect: Dialect) -> tuple[str, ...]:
    """The nodes of an fp32 graph that `dialect` leaves in fp32.

    In `u8s8f` these are the first convolution, the depthwise one after it, and the activations of both; in `s8s8f` the
    first convolution, every depthwise one, and their activations.
    """
    if dialect == "s8s8f":
        first, *others = [node for node in model.graph.node if node.op_type == "Conv"]
        kept = [first.output[0], *(node.output[0] for node in others if _is_depthwise(node))]
        following = {node.input[0]: node.output[0] for node in model.graph.node if node.op_type in _ACTIVATIONS}
        outputs = {*kept, *(following.get(name) for name in kept)}
        return tuple(node.name for node in model.graph.node if node.output[0] in outputs)
    if dialect != "u8s8f":
        return ()
    names: list[str] = []
    takers = {node.input[0]: node for node in model.graph.node}
    tensor = model.graph.input[0].name
    while (node := takers.get(tensor)) is not None and (
        node.op_type in _ACTIVATIONS or (node.op_type == "Conv" and (not names or _is_depthwise(node)))
    ):
        names.append(node.name)
        tensor = node.output[0]
    return tuple(names)


def _is_depthwise(node: onnx.NodeProto) -> bool:
    return any(attribute.name == "group" and attribute.i > 1 for attribute in node.attribute)


def inputs(model: onnx.ModelProto) -> dict[str, str]:
    """The name of the activation that each convolution and fully connected layer of an fp32 graph takes."""
    return {node.name: node.input[0] for node in model.graph.node if node.op_type in _WEIGHTED}


def pairs(model: onnx.ModelProto) -> list[tuple[str, ...]]:
    """For each weighted layer of an fp32 graph: the weighted layer before it, the layer, and the nodes after either.

    To leave these in fp32 together keeps the tensor between the two layers in floats.
    """
    makers = {output: node for node in model.graph.node for output in node.output}
    following = {node.input[0]: node.name for node in model.graph.node if node.op_type in _ACTIVATIONS}
    found = []
    for layer in model.graph.node:
        if layer.op_type not in _WEIGHTED:
            continue
        names = [following.get(layer.output[0]), layer.name]
        before = makers.get(layer.input[0])
        while before is not None:
            names.append(before.name)
            if before.op_type in _WEIGHTED:
                break
            before = makers.get(before.input[0])
        found.append(tuple(name for name in reversed(names) if name is not None))
    return found
