"""Reading of any ONNX file as the fp32 graph that later stages start from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mbbench import cache
from mbbench.errors import UsageError, first_line

if TYPE_CHECKING:
    import onnx

_CONTROL_FLOW = ("If", "Loop", "Scan", "SequenceMap")
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "BatchNormalization")  # operators whose weights are floats
_STANDARD_DOMAINS = ("", "ai.onnx")
_COLORS = 3
_IR_VERSION = 4  # the first in which constants need not be inputs; writers of older files leave them out too
_MAX_VALUES = 2**31  # of a tensor for one image: more than any classifier has
_MAX_CAUSE = 200  # characters
_EXPORT_AGAIN = "export it again"
_REMEDY = "give an ONNX image classifier: images in, logits or probabilities out"

Layout = Literal["NCHW", "NHWC"]


@dataclass(frozen=True, slots=True)
class Signature:
    """A file's input and output: their names, and what they hold.

    `height` and `width` are None if the file leaves them open. `is_integer`: the input is uint8, so that the network
    normalizes the pixels itself. `is_spatial`: the output is (N, C, 1, 1).
    """

    input: str
    layout: Layout
    height: int | None
    width: int | None
    is_integer: bool
    output: str
    classes: int
    is_spatial: bool
    batch: int | None = None  # None: any


def load(path: Path) -> onnx.ModelProto:
    """Return the model in `path` with its external data. Nothing in it is executed.

    Raises `UsageError` if the file is missing or damaged, if its external data leaves its folder, if it holds control
    flow or operators that are not ONNX's, or if types, shapes or values of its tensors cannot be right.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        cache.require_regular(path)
        model = onnx.load(path, load_external_data=False)
    except OSError as error:
        raise UsageError(f"cannot read {path} ({error.strerror})", "give the path of an ONNX file") from error
    except (DecodeError, ValueError) as error:
        raise UsageError(
            f"{path} is not an ONNX file", "give a file that torch.onnx.export or another tool wrote"
        ) from error
    if not model.graph.node:
        raise UsageError(f"{path} is not an ONNX file, or has an empty graph", _REMEDY)
    try:
        return _checked(model, path)
    except (UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is damaged ({first_line(error)})", _EXPORT_AGAIN) from error
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, RuntimeError, ValueError) as error:
        cause = " ".join(str(error).split())[:_MAX_CAUSE]  # onnx writes a stack of contexts
        raise UsageError(f"{path} is not valid ONNX ({cause})", _EXPORT_AGAIN) from error


def _checked(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """Return the model with its external data, after all that can be checked without computing anything."""
    import onnx

    _read_texts(model)
    _load_external_data(model, path)
    if model.functions:
        from onnx.inliner import inline_local_functions

        model = inline_local_functions(model)
    foreign = sorted(
        {f"{node.domain}.{node.op_type}" for node in model.graph.node if node.domain not in _STANDARD_DOMAINS}
    )
    if foreign:
        raise UsageError(f"{path} has custom operators: {', '.join(foreign)}", "export it with ONNX's own operators")
    control = sorted({node.op_type for node in model.graph.node if node.op_type in _CONTROL_FLOW})
    if control:
        raise UsageError(
            f"{path} has control flow: {', '.join(control)}", "export it for a fixed path through the network"
        )
    model.ir_version = max(model.ir_version, _IR_VERSION)
    onnx.checker.check_model(model)
    _check_weights(model, path)
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, data_prop=True)
    for value in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output):
        size = math.prod(dimension or 1 for dimension in _dimensions(value))
        if size > _MAX_VALUES:
            raise UsageError(f"{path} has a tensor of {size} values: {value.name}", _EXPORT_AGAIN)
    return model


def _read_texts(message: Any) -> None:
    """Raise `UnicodeDecodeError` unless every text in a message is UTF-8, which protobuf does not check."""
    kind = message.DESCRIPTOR.name
    texts = (
        [message.name] if kind == "TensorProto" else [message.s, *message.strings] if kind == "AttributeProto" else []
    )
    for field, value in message.ListFields() if kind != "TensorProto" else ():  # the data of tensors is not copied
        if field.message_type is not None:
            for part in value if isinstance(value, Sequence) else (value,):
                _read_texts(part)
        elif field.type == field.TYPE_STRING:
            texts += (value,) if isinstance(value, str | bytes) else value
    for text in texts:
        if isinstance(text, bytes):  # protobuf leaves what it cannot decode
            text.decode()


def _check_weights(model: onnx.ModelProto, path: Path) -> None:
    """Raise `UsageError` that names the first constant with NaN, or the first weight that is not a float.

    Infinite constants are usual in the masks of attention.
    """
    import numpy as np
    import onnx

    types = onnx.TensorProto
    floats = (types.FLOAT, types.FLOAT16, types.DOUBLE, types.BFLOAT16)
    weights = {name for node in model.graph.node if node.op_type in _WEIGHTED for name in node.input[1:]}
    for tensor in model.graph.initializer:
        if tensor.name in weights and tensor.data_type not in floats:
            known = tensor.data_type in types.DataType.values()
            dtype = types.DataType.Name(tensor.data_type).lower() if known else f"number {tensor.data_type}"
            raise UsageError(f"{tensor.name} in {path} has the dtype {dtype}", "export it with weights of float32")
        values = onnx.numpy_helper.to_array(tensor) if tensor.data_type in floats[:3] else np.empty(0)
        if (bad := int(np.isnan(values).sum())) > 0:
            raise UsageError(
                f"{tensor.name} in {path} has NaN: {bad} of {values.size} values",
                "export it from a checkpoint of before the training diverged",
            )


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield the constants of the graph, and those in attributes of nodes."""
    yield from model.graph.initializer
    nodes = (*model.graph.node, *(node for function in model.functions for node in function.node))
    for attribute in (attribute for node in nodes for attribute in node.attribute):
        yield from (attribute.t, *attribute.tensors)


def _load_external_data(model: onnx.ModelProto, path: Path) -> None:
    """Load the tensors that are stored in other files, which must be in the model's folder."""
    import onnx
    from onnx.external_data_helper import load_external_data_for_model, uses_external_data

    folder = path.resolve().parent
    for tensor in _tensors(model):
        if not uses_external_data(tensor):
            continue
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        target = (folder / location).resolve()
        if not location or Path(location).is_absolute() or not target.is_relative_to(folder):
            raise UsageError(
                f"{path} stores {tensor.name} outside its folder: {location!r}", "save it with its data next to it"
            )
        if not target.is_file():
            raise UsageError(f"{path} needs {location}, which is missing", "put it next to the file")
    try:
        load_external_data_for_model(model, str(folder))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        cause = first_line(error)
        raise UsageError(f"{path}: its external data cannot be read ({cause})", "save the file again") from error


def signature(model: onnx.ModelProto, path: Path, logits: str | None = None) -> Signature:
    """Return what the model's input and output are; `logits` names the output if there are several.

    Raises `UsageError` that says what the file has if it is not an image classifier.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    if len(inputs) != 1:
        listed = ", ".join(map(_described, inputs)) or "none"
        raise UsageError(f"{path} has {len(inputs)} inputs ({listed}), not one of images", _REMEDY)
    output = _pick_output(model, path, logits)
    shape = _dimensions(inputs[0])
    layout = _layout(shape)
    if layout is None or inputs[0].type.tensor_type.elem_type not in _element_types():
        raise UsageError(
            f"{path} has no image input: {_described(inputs[0])}",
            "its input must be (N, 3, H, W) or (N, H, W, 3), float32 or uint8",
        )
    height, width = (shape[2], shape[3]) if layout == "NCHW" else (shape[1], shape[2])
    classes = _dimensions(output)
    spatial = len(classes) == 4 and classes[2:] == (1, 1)
    if not (len(classes) == 2 or spatial) or classes[1] is None or classes[1] < 2:
        raise UsageError(
            f"{path} has no logits: its output is {_described(output)}",
            "its output must be (N, classes) or (N, classes, 1, 1); name another with --logits",
        )
    return Signature(
        input=inputs[0].name,
        layout=layout,
        height=height,
        width=width,
        is_integer=inputs[0].type.tensor_type.elem_type == _element_types()[1],
        output=output.name,
        classes=classes[1],
        is_spatial=spatial,
        batch=shape[0],
    )


def _pick_output(model: onnx.ModelProto, path: Path, logits: str | None) -> onnx.ValueInfoProto:
    outputs = {value.name: value for value in model.graph.output}
    listed = ", ".join(map(_described, outputs.values()))
    if logits is not None:
        if logits not in outputs:
            raise UsageError(f"{path} has no output {logits!r}", f"choose one of {listed}")
        return outputs[logits]  # type: ignore[no-any-return]
    if len(outputs) != 1:
        raise UsageError(f"{path} has {len(outputs)} outputs ({listed})", "name the logits with --logits NAME")
    return next(iter(outputs.values()))  # type: ignore[no-any-return]


def _element_types() -> tuple[int, int]:
    import onnx

    return onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8


def _dimensions(value: onnx.ValueInfoProto) -> tuple[int | None, ...]:
    """Return the tensor's shape; None for a symbolic dimension, which some exporters write as -1."""
    return tuple(
        dimension.dim_value if dimension.HasField("dim_value") and dimension.dim_value >= 0 else None
        for dimension in value.type.tensor_type.shape.dim
    )


def _layout(shape: tuple[int | None, ...]) -> Layout | None:
    if len(shape) == 4 and shape[1] == _COLORS:
        return "NCHW"
    return "NHWC" if len(shape) == 4 and shape[3] == _COLORS else None


def _described(value: onnx.ValueInfoProto) -> str:
    """Return name, type and shape: `images float32 (N, 3, 224, 224)`."""
    import onnx

    kind = value.type.tensor_type
    shape = ", ".join(
        str(dimension.dim_value) if dimension.HasField("dim_value") else dimension.dim_param or "?"
        for dimension in kind.shape.dim
    )
    try:
        name = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name
    except KeyError:
        name = "of unknown type"
    return f"{value.name} {name} ({shape})"
