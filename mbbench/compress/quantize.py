"""An fp32 ONNX graph and its activations' ranges as a Q/DQ graph, in the dialect that a runtime executes fast."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING

from mbbench.backend import Dialect
from mbbench.compress.calibrate import Range, onnxruntime

if TYPE_CHECKING:
    import onnx

_WEIGHTED = ("Conv", "Gemm")
_ACTIVATIONS = ("Clip", "Relu")
_FLOAT_ACTIVATIONS = (
    "HardSwish",
    "HardSigmoid",
    "Sigmoid",
    "Mul",
    "Gelu",
    "Tanh",
    "Elu",
    "LeakyRelu",
    "PRelu",
)  # Mul: SiLU
# A batch norm that no convolution takes in (DenseNet) has an activation after it, and no runtime has it in 8 bits.
_NOT_QUANTIZED = ("BatchNormalization",)
_HARD_SWISH_LOW = -3.0  # below it, hard swish is 0
_POOLING = ("MaxPool", "AveragePool")
_VIEWS = ("Pad", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze")


def write(
    model: onnx.ModelProto,
    ranges: Mapping[str, Range],
    dialect: Dialect,
    *,
    keep_fp32: Collection[str] = (),
    per_channel: bool = True,
) -> onnx.ModelProto:
    """Return the graph with QuantizeLinear and DequantizeLinear pairs around the nodes that run in 8 bits.

    - `u8s8`: activations uint8 with a zero point, weights int8, biases int32, which is what CPUs multiply.
    - `u8s8f`: u8s8 with the nodes of `fp32_nodes` in fp32, for ONNX Runtime, which runs them faster.
    - `u8s8p`: u8s8 without rounding between a convolution and an activation other than ReLU, for OpenVINO and PyTorch,
      which fuse the two (a post-op). ONNX Runtime and LiteRT would run such a convolution in fp32.
    - `u8u8`: u8s8 with the weights as uint8 around 128, for ONNX Runtime on CPUs that add two products in 16 bits
      (`Machine.saturates_int8`); it widens such weights first.
    - `u8s7`: u8s8p with weights from -64 to 64, for OpenVINO on such CPUs; it runs unsigned weights in fp32.
    - `s8s8`: activations int8 and symmetric, biases fp32, which is what TensorRT accepts.
    - `s8s8f`: s8s8 with the nodes of `fp32_nodes` in fp32, for ncnn, which runs them faster.

    Weights are symmetric, with one scale per output channel. The nodes named in `keep_fp32` stay in fp32. The logits
    are not quantized, since 8 bits would make ties among them. Raises `BackendError` if ONNX Runtime, whose quantizer
    writes the graph, is not installed.
    """
    onnxruntime()
    import numpy as np
    import onnx
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.registry import QDQRegistry

    symmetric = dialect in ("s8s8", "s8s8f")
    inferred = onnx.shape_inference.infer_shapes(model)
    shuffles = _channel_shuffles(model)
    ranges = {**ranges, **{after: ranges[before] for _, before, after in shuffles if before in ranges}}
    ranges |= {
        name: (max(ranges[name][0], _HARD_SWISH_LOW), max(ranges[name][1], 0.0))
        for name, nodes in readers(model.graph).items()
        if name in ranges and all(node.op_type == "HardSwish" for node in nodes)
    }
    data = TensorsData(
        CalibrationMethod.MinMax, {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()}
    )
    with _without_warnings():
        quantizer = QDQQuantizer(
            inferred,
            per_channel,
            dialect == "u8s7",
            QuantType.QInt8,
            QuantType.QInt8 if symmetric else QuantType.QUInt8,
            data,
            [],
            [
                *keep_fp32,
                *fp32_nodes(model, dialect),
                *_joins(model),
                *chain.from_iterable(names for names, *_ in shuffles),
            ],
            [operator for operator in QDQRegistry if operator not in _NOT_QUANTIZED],
            {
                "ActivationSymmetric": symmetric,
                "WeightSymmetric": True,
                "QuantizeBias": not symmetric,
                "OpTypesToExcludeOutputQuantization": list(_WEIGHTED) if symmetric else ["Gemm"],
            },
        )
        quantizer.quantize_model()
    written: onnx.ModelProto = quantizer.model.model
    if dialect in ("u8s8p", "u8s7"):
        _unround_before_activations(written.graph)
    if dialect == "u8u8":
        _make_weights_unsigned(written.graph)
    return written


def readers(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    """Return the nodes that read each tensor."""
    nodes: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            nodes.setdefault(name, []).append(node)
    return nodes


def _unround_before_activations(graph: onnx.GraphProto) -> None:
    """Remove the Q/DQ pairs between a weighted layer and activations other than ReLU."""
    producers = {output: node for node in graph.node for output in node.output}
    read_by = readers(graph)
    removed: set[str] = set()
    for quantize in graph.node:
        source = producers.get(quantize.input[0])
        if quantize.op_type != "QuantizeLinear" or source is None or source.op_type not in _WEIGHTED:
            continue
        pairs = read_by[quantize.output[0]]
        after = [node for pair in pairs for node in read_by.get(pair.output[0], ())]
        if any(node.op_type not in _FLOAT_ACTIVATIONS for node in after):
            continue
        rounded = {pair.output[0] for pair in pairs}
        for node in after:
            for index, name in enumerate(node.input):
                if name in rounded:
                    node.input[index] = quantize.input[0]
        removed |= {quantize.name, *(pair.name for pair in pairs)}
    nodes = [node for node in graph.node if node.name not in removed]
    del graph.node[:]
    graph.node.extend(nodes)


def _make_weights_unsigned(graph: onnx.GraphProto) -> None:
    """Shift every int8 tensor, and its zero point of 0, by 128."""
    import numpy as np
    import onnx

    for tensor in graph.initializer:
        if tensor.data_type == onnx.TensorProto.INT8:
            values = onnx.numpy_helper.to_array(tensor).astype(np.int16) + 128
            tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.uint8), tensor.name))


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Silence the root logger, through which ONNX Runtime's quantizer warns about intended settings."""
    logger = logging.getLogger()
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _channel_shuffles(model: onnx.ModelProto) -> list[tuple[tuple[str, str, str], str, str]]:
    """Return the nodes of each channel shuffle (reshape, transpose, reshape), the tensor before it and that after it.

    Runtimes fuse the three only if nothing is between them: quantized one by one, they take OpenVINO's ShuffleNet from
    1.72 to 2.37 ms. The tensors before and after have the same values, and so need the same range.
    """
    read_by = readers(model.graph)
    shuffles = []
    for first in model.graph.node:
        nodes = [first]
        while len(nodes) < 3 and len(read_by.get(nodes[-1].output[0], ())) == 1:
            nodes += read_by[nodes[-1].output[0]]
        if [node.op_type for node in nodes] == ["Reshape", "Transpose", "Reshape"]:
            names = (nodes[0].name, nodes[1].name, nodes[2].name)
            shuffles.append((names, first.input[0], nodes[2].output[0]))
    return shuffles


def _joins(model: onnx.ModelProto) -> list[str]:
    """Return the names of the nodes by which constants join every image (`graphs.batch`), and of the views before them.

    A quantized zero is not 0: the padding would need a zero point of its own, whose shape OpenVINO gets wrong.
    """
    producers = {output: node for node in model.graph.node for output in node.output}
    names = []
    for node in model.graph.node:
        before = producers.get(node.input[0])
        if node.op_type != "Add" or before is None or before.op_type != "Pad":
            continue
        names.append(node.name)
        while before is not None and before.op_type in _VIEWS:
            names.append(before.name)
            before = producers.get(before.input[0])
    return names


def weight_quant_max(dialect: Dialect) -> int:
    """Return the largest integer that a weight can become."""
    return 64 if dialect == "u8s7" else 127


def fp32_nodes(model: onnx.ModelProto, dialect: Dialect) -> tuple[str, ...]:
    """Return the names of the nodes of an fp32 graph that `dialect` leaves in fp32.

    In `u8s8f` these are the first convolution, the depthwise convolution after it, and the activations of both; none if
    pooling reads them, which ONNX Runtime would run in fp32 too, many times as slowly. In `s8s8f` they are the first
    convolution, every depthwise convolution, and their activations.
    """
    if dialect == "s8s8f":
        first, *others = [node for node in model.graph.node if node.op_type == "Conv"]
        kept = [first.output[0], *(node.output[0] for node in others if _is_depthwise(node))]
        activated = {node.input[0]: node.output[0] for node in model.graph.node if node.op_type in _ACTIVATIONS}
        outputs = {*kept, *(activated.get(name) for name in kept)}
        return tuple(node.name for node in model.graph.node if node.output[0] in outputs)
    if dialect != "u8s8f":
        return ()
    names: list[str] = []
    consumers = {node.input[0]: node for node in model.graph.node}
    tensor = model.graph.input[0].name
    while (node := consumers.get(tensor)) is not None and (
        node.op_type in _ACTIVATIONS or (node.op_type == "Conv" and (not names or _is_depthwise(node)))
    ):
        names.append(node.name)
        tensor = node.output[0]
    return () if node is not None and node.op_type in _POOLING else tuple(names)


def _is_depthwise(node: onnx.NodeProto) -> bool:
    return any(attribute.name == "group" and attribute.i > 1 for attribute in node.attribute)


def layer_inputs(model: onnx.ModelProto) -> dict[str, str]:
    """Return the name of the input activation of each convolution and fully connected layer of an fp32 graph."""
    return {node.name: node.input[0] for node in model.graph.node if node.op_type in _WEIGHTED}


def layer_pairs(model: onnx.ModelProto) -> list[tuple[str, ...]]:
    """Return, for each weighted layer of an fp32 graph, the nodes from the weighted layer before it to its activation.

    Leaving all of these in fp32 keeps the tensor between the two layers in floating point.
    """
    producers = {output: node for node in model.graph.node for output in node.output}
    activations = {node.input[0]: node.name for node in model.graph.node if node.op_type in _ACTIVATIONS}
    pairs = []
    for layer in model.graph.node:
        if layer.op_type not in _WEIGHTED:
            continue
        names = [activations.get(layer.output[0]), layer.name]
        before = producers.get(layer.input[0])
        while before is not None:
            names.append(before.name)
            if before.op_type in _WEIGHTED:
                break
            before = producers.get(before.input[0])
        pairs.append(tuple(name for name in reversed(names) if name is not None))
    return pairs
