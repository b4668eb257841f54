import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from mbbench.compress.calibrate import BINS, RangeMethod, Statistics, logits, ranges, statistics


def doubling() -> onnx.ModelProto:
    """Return the graph `twice` = 2 `images`, `logits` = ReLU(`twice`); all have the shape (N, 1, 2, 7)."""
    graph = helper.make_graph(
        [
            helper.make_node("Mul", ["images", "two"], ["twice"], "twice"),
            helper.make_node("Relu", ["twice"], ["logits"], "relu"),
        ],
        "doubling",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 1, 2, 7])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 1, 2, 7])],
        [numpy_helper.from_array(np.asarray(2, np.float32), "two")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def images(count: int) -> NDArray[np.float32]:
    return np.linspace(-1, 3, count * 14, dtype=np.float32).reshape(count, 1, 2, 7)


def test_statistics_cover_every_activation_in_all_batches() -> None:
    progress: list[tuple[int, int]] = []
    tensors = statistics(doubling(), images(20), lambda *counts: progress.append(counts))
    assert {name: (tensor.low, tensor.high) for name, tensor in tensors.items()} == {
        "images": (-1.0, 3.0),
        "twice": (-2.0, 6.0),
        "logits": (0.0, 6.0),
    }
    lows = images(20).reshape(20, 14).min(axis=1)
    assert tensors["twice"].mean_low == pytest.approx(2 * lows.mean())
    assert tensors["logits"].mean_high == pytest.approx(2 * np.maximum(images(20), 0).max(axis=(1, 2, 3)).mean())
    assert all(tensor.histogram.sum() == 20 * 14 / 7 for tensor in tensors.values())
    assert progress == [(8, 40), (16, 40), (20, 40), (28, 40), (36, 40), (40, 40)]


def test_logits_cover_all_images_in_order() -> None:
    np.testing.assert_array_equal(logits(doubling(), images(20)), np.maximum(images(20) * 2, 0))


def with_counts(counts: dict[int, int], low: float = 0.0, high: float = 8.0) -> Statistics:
    """Return statistics whose histogram holds `counts`, by the index of the bin."""
    histogram = np.zeros(BINS, np.int64)
    for index, count in counts.items():
        histogram[index] = count
    return Statistics(low, high, low, high, histogram)


@pytest.mark.parametrize(
    ("method", "high"),
    [
        ("minmax", 8.0),
        ("percentile", 8.0 * 256 / BINS),  # the upper edge of bin 255, which holds all values except the outlier
    ],
)
def test_an_outlier_stretches_only_the_minmax_range(method: RangeMethod, high: float) -> None:
    assert ranges({"x": with_counts({255: 10**6, BINS - 1: 1})}, method)["x"][1] == high


def test_the_mean_range_ends_where_the_average_image_does() -> None:
    tensor = Statistics(-1.0, 8.0, -0.5, 3.0, np.ones(BINS, np.int64))
    assert ranges({"x": tensor}, "mean") == {"x": (-0.5, 3.0)}


def test_mse_clips_an_outlier_if_that_costs_less_than_coarse_steps() -> None:
    values = dict.fromkeys(range(0, BINS // 4), 10000)
    assert ranges({"x": with_counts(values | {BINS - 1: 1})}, "mse")["x"][1] < 2.5
    assert ranges({"x": with_counts(dict.fromkeys(range(BINS), 1))}, "mse")["x"] == pytest.approx((0.0, 8.0), rel=0.02)


def test_mse_keeps_zero_in_the_range() -> None:
    low, high = ranges({"x": with_counts({0: 1, BINS - 1: 1}, low=1.0, high=3.0)}, "mse")["x"]
    assert low <= 1.0 and high > 2.0
