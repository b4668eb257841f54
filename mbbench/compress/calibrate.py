"""Calibration: statistics of an ONNX graph's activations, and the ranges that 8 bits cover."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from mbbench.data.feed import to_float
from mbbench.errors import BackendError, UsageError
from mbbench.machine import allowed_cpus
from mbbench.spec import Preprocessing, Size

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from numpy.typing import NDArray

RangeMethod = Literal["minmax", "mean", "percentile", "mse"]
Range = tuple[float, float]  # lowest and highest value

BINS = 2048
_BATCH = 8
_STEPS = 255  # between the 256 values of 8 bits
_COVERED = 0.9999  # share of the values that `percentile` covers
_MSE_CANDIDATES = 100
# Histograms count every seventh value: counting all would take longer than running the network. At resolutions 128, 160
# and 192, 7 divides no map's width, so all columns are counted. At 224 it divides every width (112 to 7), so only every
# seventh column is.
_HISTOGRAM_STRIDE = 7
CALIBRATION_IMAGES = 256
VALIDATION_IMAGES = 256
_SEED = 20170417
_NOISE_IMAGES = 32  # for calibration, and as many for validation


@dataclass(frozen=True, slots=True)
class Calibration:
    """Normalized images to calibrate with, and validation images to choose the method by."""

    images: NDArray[np.float32]  # (N, 3, H, W)
    validation_images: NDArray[np.float32]  # (M, 3, H, W)
    validation_labels: NDArray[np.int64] | None  # (M,)
    source: str
    fingerprint: str


def split_for_calibration(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    preprocessing: Preprocessing,
    source: str,
    fingerprint: str,
    *,
    labeled: bool,
) -> Calibration:
    """Split `images` (N, R, R, 3), in a seeded order, into calibration and validation images.

    Half of them, at most `CALIBRATION_IMAGES`, are for calibration; of the others at most `VALIDATION_IMAGES` are for
    validation. `labeled`: whether `labels` (N,) are the network's classes. Raises `UsageError` for fewer than two
    images.
    """
    import numpy as np

    if len(images) < 2:
        raise UsageError(
            f"{source} has too few images to calibrate with: {len(images)}", "give --calibration with at least 2"
        )
    order = np.random.default_rng(_SEED).permutation(len(images))
    count = min(len(images) // 2, CALIBRATION_IMAGES)
    calibrating, validating = np.sort(order[:count]), np.sort(order[count : count + VALIDATION_IMAGES])
    return Calibration(
        to_float(images[calibrating], preprocessing),
        to_float(images[validating], preprocessing),
        labels[validating] if labeled else None,
        source,
        fingerprint,
    )


def random_calibration(size: Size) -> Calibration:
    """Return uniform noise, for measuring speed without images. The quantized network's accuracy is meaningless."""
    import numpy as np

    shape = (2 * _NOISE_IMAGES, 3, *size)
    noise = np.random.default_rng(_SEED).uniform(-1, 1, shape).astype(np.float32)
    return Calibration(noise[:_NOISE_IMAGES], noise[_NOISE_IMAGES:], None, "random", "random")


@dataclass(frozen=True, slots=True)
class Statistics:
    """One tensor's extremes over all calibration images, their means over the images, and a histogram of the values."""

    low: float
    high: float
    mean_low: float
    mean_high: float
    histogram: NDArray[np.int64]  # (BINS,)


def session(model: onnx.ModelProto) -> Any:
    """Return an ONNX Runtime session of `model` on all allowed cores.

    It computes a Q/DQ graph in floating point and rounds where the graph rounds. This chip's integer kernels, which may
    saturate, must not decide how a network is quantized. Raises `BackendError` if ONNX Runtime is not installed.
    """
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    # By default ONNX Runtime pins its threads to CPUs that a container may not have, and prints warnings about it.
    options.intra_op_num_threads = len(allowed_cpus())
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def onnxruntime() -> Any:
    """Return the module `onnxruntime`, its telemetry off. Raises `BackendError` if it cannot be imported."""
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise BackendError(
            f"INT8 quantization needs ONNX Runtime, which cannot be imported ({error})", "run `pip install onnxruntime`"
        ) from error
    ort.disable_telemetry_events()
    return ort


def logits(model: onnx.ModelProto, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the logits (N, classes) that `model` computes from `images` (N, 3, H, W)."""
    import numpy as np

    opened = session(model)
    input_name = model.graph.input[0].name
    return np.concatenate(
        [opened.run(None, {input_name: images[start : start + _BATCH]})[0] for start in range(0, len(images), _BATCH)]
    )


def statistics(
    model: onnx.ModelProto, images: NDArray[np.float32], on_progress: Callable[[int, int], None] | None = None
) -> dict[str, Statistics]:
    """Return the statistics of the input and of every activation, by name.

    `images` (N, 3, H, W) run twice, first for the extremes, then for the histograms; `on_progress` counts 2N.
    """
    import numpy as np

    names, run = _observer(model)
    lows: dict[str, list[float]] = {name: [] for name in names}  # an element for each image
    highs: dict[str, list[float]] = {name: [] for name in names}
    total = 2 * len(images)
    for done, values in run(images):
        for name, value in values.items():
            rows = value.reshape(len(value), -1)
            lows[name] += rows.min(axis=1).tolist()
            highs[name] += rows.max(axis=1).tolist()
        if on_progress is not None:
            on_progress(done, total)
    low = {name: min(values) for name, values in lows.items()}
    high = {name: max(values) for name, values in highs.items()}
    counts = {name: np.zeros(BINS, np.int64) for name in names}
    for done, values in run(images):
        for name, value in values.items():
            scale = BINS / (high[name] - low[name]) if high[name] > low[name] else 0.0
            bins = ((value.reshape(-1)[::_HISTOGRAM_STRIDE] - low[name]) * scale).astype(np.int64)
            counts[name] += np.bincount(np.minimum(bins, BINS - 1), minlength=BINS)
        if on_progress is not None:
            on_progress(len(images) + done, total)
    return {
        name: Statistics(low[name], high[name], float(np.mean(lows[name])), float(np.mean(highs[name])), counts[name])
        for name in names
    }


def _observer(
    model: onnx.ModelProto,
) -> tuple[list[str], Callable[[Any], Iterator[tuple[int, Mapping[str, Any]]]]]:
    """Return the names of the activations, and a function that runs images in batches.

    The function yields, after each batch, the number of images run so far and the batch's activations by name.
    """
    import onnx

    observed = onnx.ModelProto()
    observed.CopyFrom(model)
    input_name = observed.graph.input[0].name
    outputs = {value.name for value in observed.graph.output}
    inner = [name for node in observed.graph.node for name in node.output if name and name not in outputs]
    for name in inner:
        observed.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    names = [*inner, *outputs]
    opened = session(observed)

    def run(images: Any) -> Iterator[tuple[int, Mapping[str, Any]]]:
        for start in range(0, len(images), _BATCH):
            batch = images[start : start + _BATCH]
            values = dict(zip(names, opened.run(names, {input_name: batch}), strict=True))
            yield start + len(batch), {input_name: batch, **values}

    return [input_name, *names], run


def ranges(statistics: Mapping[str, Statistics], method: RangeMethod) -> dict[str, Range]:
    """Return the range that 8 bits should cover, for each tensor.

    `minmax` covers every value seen. `mean` covers the average image: it ends at the means over all images of their
    lowest and highest values, which few images with huge activations hardly move. `percentile` leaves out one value in
    ten thousand, half of them at each end. `mse` minimizes the mean squared error of rounding and clipping over a
    hundred ranges, from the full one to a fifth of it.
    """
    choose = {"minmax": _minmax, "mean": _mean, "percentile": _percentile, "mse": _mse}[method]
    return {name: choose(tensor) for name, tensor in statistics.items()}


def _minmax(tensor: Statistics) -> Range:
    return tensor.low, tensor.high


def _mean(tensor: Statistics) -> Range:
    return tensor.mean_low, tensor.mean_high


def _percentile(tensor: Statistics) -> Range:
    import numpy as np

    edges = _edges(tensor)
    cumulative = np.cumsum(tensor.histogram) / max(tensor.histogram.sum(), 1)
    tail = (1 - _COVERED) / 2
    low = edges[int(np.searchsorted(cumulative, tail, side="right"))]
    high = edges[min(int(np.searchsorted(cumulative, 1 - tail)) + 1, BINS)]
    return float(low), float(high)


def _mse(tensor: Statistics) -> Range:
    """Shrink both ends toward zero by the same factor; every candidate holds zero, which must stay exact."""
    import numpy as np

    edges = _edges(tensor)
    centers = (edges[:-1] + edges[1:]) / 2
    best, least = (tensor.low, tensor.high), np.inf
    for factor in np.linspace(1, 0.2, _MSE_CANDIDATES):
        low, high = min(tensor.low * factor, 0.0), max(tensor.high * factor, 0.0)
        step = (high - low) / _STEPS
        if step <= 0:
            break
        rounded = np.clip(np.round((centers - low) / step), 0, _STEPS) * step + low
        error = float(((rounded - centers) ** 2) @ tensor.histogram)
        if error < least:
            best, least = (float(low), float(high)), error
    return best


def _edges(tensor: Statistics) -> NDArray[np.float64]:
    """Return the edges of the histogram's bins (BINS + 1,)."""
    import numpy as np

    return np.linspace(tensor.low, tensor.high, BINS + 1)
