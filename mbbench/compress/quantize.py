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

    `u8s8`: activations uint8 with a zero point, weights int8, biases int32: what CPUs multiply. `s8s8`: activations
    int8 symmetric, biases fp32: what TensorRT accepts. Weights are symmetric, one scale an output channel. The nodes
    called in `keep` stay in fp32. The logits are not quantized: 8 bits of them would make ties. Raises `BackendError`
    where ONNX Runtime, whose quantizer writes the graph, is not installed.
    """
    onnxruntime()
    import numpy as np
    import onnx
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.registry import QDQRegistry

    symmetric = dialect == "s8s8"
    own = onnx.shape_inference.infer_shapes(model)
    data = TensorsData(
        CalibrationMethod.MinMax, {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()}
    )
    with _without_warnings():
        quantizer = QDQQuantizer(
            own,
            per_channel,
            False,
            QuantType.QInt8,
            QuantType.QInt8 if symmetric else QuantType.QUInt8,
            data,
            [],
            list(keep),
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
    return written


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


def inputs(model: onnx.ModelProto) -> dict[str, str]:
    """The name of the activation that each convolution and fully connected layer of an fp32 graph takes."""
    return {node.name: node.input[0] for node in model.graph.node if node.op_type in _WEIGHTED}


def with_activations(model: onnx.ModelProto, layers: Collection[str]) -> list[str]:
    """`layers` and, after each, the activation function that takes its output: the nodes to leave in fp32 together."""
    makers = {node.output[0]: node.name for node in model.graph.node if node.name in layers}
    following = {
        makers[node.input[0]]: node.name
        for node in model.graph.node
        if node.op_type in _ACTIVATIONS and node.input[0] in makers
    }
    return [name for layer in layers for name in (layer, following.get(layer)) if name is not None]
