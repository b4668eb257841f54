"""What the activations of an ONNX graph look like on calibration images, and the ranges that follow for 8 bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from mbbench.errors import BackendError
from mbbench.machine import allowed_cpus

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from numpy.typing import NDArray

Ranging = Literal["minmax", "percentile", "mse"]
Range = tuple[float, float]

BINS = 2048
_BATCH = 8
_LEVELS = 255
_PERCENTILE = 0.9999
_CANDIDATES = 100
# Histograms count every seventh value: all of them would take longer than the network, and 7 divides no usual width but
# those of 7x7 and 14x14 maps, where neighbours differ.
_STRIDE = 7


@dataclass(frozen=True, slots=True)
class Statistics:
    """Of one tensor over all calibration images: the extremes, and a histogram between them."""

    low: float
    high: float
    histogram: NDArray[np.int64]  # (BINS,)


def session(model: onnx.ModelProto) -> Any:
    """ONNX Runtime on the model, on all cores; raises `BackendError` where it is not installed.

    A Q/DQ graph is computed in floats, rounded where it says: what a chip's integer kernels make of it, whether they
    saturate say, must not decide how a network is quantized.
    """
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    # Left alone it pins its threads to CPUs that a container may not have, and complains of it on the terminal.
    options.intra_op_num_threads = len(allowed_cpus())
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def onnxruntime() -> Any:
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise BackendError(
            f"INT8 is made with ONNX Runtime, which cannot be imported ({error})", "run `pip install onnxruntime`"
        ) from error
    ort.disable_telemetry_events()
    return ort


def logits(model: onnx.ModelProto, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits (N, classes) of `images` (N, 3, H, W)."""
    import numpy as np

    opened = session(model)
    source = model.graph.input[0].name
    return np.concatenate(
        [opened.run(None, {source: images[start : start + _BATCH]})[0] for start in range(0, len(images), _BATCH)]
    )


def statistics(
    model: onnx.ModelProto, images: NDArray[np.float32], on_progress: Callable[[int, int], None] | None = None
) -> dict[str, Statistics]:
    """Run `images` (N, 3, H, W) twice: for the extremes of every activation, then for the histograms."""
    import numpy as np

    names, run = _observed(model)
    low = dict.fromkeys(names, np.inf)
    high = dict.fromkeys(names, -np.inf)
    total = 2 * len(images)
    for done, values in run(images):
        for name, value in values.items():
            low[name] = min(low[name], float(value.min()))
            high[name] = max(high[name], float(value.max()))
        if on_progress is not None:
            on_progress(done, total)
    counts = {name: np.zeros(BINS, np.int64) for name in names}
    for done, values in run(images):
        for name, value in values.items():
            scale = BINS / (high[name] - low[name]) if high[name] > low[name] else 0.0
            bins = ((value.reshape(-1)[::_STRIDE] - low[name]) * scale).astype(np.int64)
            counts[name] += np.bincount(np.minimum(bins, BINS - 1), minlength=BINS)
        if on_progress is not None:
            on_progress(len(images) + done, total)
    return {name: Statistics(low[name], high[name], counts[name]) for name in names}


def _observed(
    model: onnx.ModelProto,
) -> tuple[list[str], Callable[[Any], Iterator[tuple[int, Mapping[str, Any]]]]]:
    """The graph's activations, and a function that runs images and yields (images so far, activation by name)."""
    import onnx

    own = onnx.ModelProto()
    own.CopyFrom(model)
    source = own.graph.input[0].name
    results = {value.name for value in own.graph.output}
    inner = [node.output[0] for node in own.graph.node if node.output[0] not in results]
    for name in inner:
        own.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    names = [*inner, *results]
    opened = session(own)

    def run(images: Any) -> Iterator[tuple[int, Mapping[str, Any]]]:
        for start in range(0, len(images), _BATCH):
            chunk = images[start : start + _BATCH]
            values = dict(zip(names, opened.run(names, {source: chunk}), strict=True))
            yield start + len(chunk), {source: chunk, **values}

    return [source, *names], run


def ranges(found: Mapping[str, Statistics], how: Ranging) -> dict[str, Range]:
    """The range that 8 bits shall cover, of each tensor.

    `minmax` covers all that was seen; `percentile` leaves out one value in ten thousand, half of them at each end;
    `mse` makes the mean squared error of rounding and clipping least (a search over a hundred narrower ranges).
    """
    choose = {"minmax": _minmax, "percentile": _percentile, "mse": _mse}[how]
    return {name: choose(of) for name, of in found.items()}


def _minmax(of: Statistics) -> Range:
    return of.low, of.high


def _percentile(of: Statistics) -> Range:
    import numpy as np

    edges = _edges(of)
    shares = np.cumsum(of.histogram) / max(of.histogram.sum(), 1)
    tail = (1 - _PERCENTILE) / 2
    low = edges[int(np.searchsorted(shares, tail, side="right"))]
    high = edges[min(int(np.searchsorted(shares, 1 - tail)) + 1, BINS)]
    return float(low), float(high)


def _mse(of: Statistics) -> Range:
    """Ranges shrink towards zero on both sides alike: zero must stay exact."""
    import numpy as np

    edges = _edges(of)
    centres = (edges[:-1] + edges[1:]) / 2
    best, least = (of.low, of.high), np.inf
    for share in np.linspace(1, 0.2, _CANDIDATES):
        low, high = min(of.low * share, 0.0), max(of.high * share, 0.0)
        step = (high - low) / _LEVELS
        if step <= 0:
            break
        rounded = np.clip(np.round((centres - low) / step), 0, _LEVELS) * step + low
        error = float(((rounded - centres) ** 2) @ of.histogram)
        if error < least:
            best, least = (float(low), float(high)), error
    return best


def _edges(of: Statistics) -> NDArray[np.float64]:
    import numpy as np

    return np.linspace(of.low, of.high, BINS + 1)
