"""The time of each layer, from the times of a runtime's nodes."""

from mbbench.analysis.layer_times import attribute
from mbbench.backend import NodeTime
from mbbench.models.cost import Layer
from mbbench.result import LayerTime, LayerTimes

LAYERS = (
    Layer("stem.conv", "Conv 3x3", (8, 16, 16), 300, 216, 232, 3072),
    Layer("blocks.1.0.conv", "Conv DW 3x3", (8, 16, 16), 100, 72, 88, 2048),
    Layer("classifier", "Fully connected", (10,), 600, 80, 90, 8),
)
STEM = LayerTime(
    name="stem.conv",
    type="Conv 3x3",
    precision="fp32",
    median_ms=2.0,
    mult_adds=900,
    moved_bytes=4 * (3 * (3072 + 2048) + 216),
)


def test_layers_get_the_times_of_their_nodes_and_other_time_is_reported_apart() -> None:
    times = (
        NodeTime(("images",), "Reorder", "fp32", 0.25),
        NodeTime(("stem.act_nchwc", "images", "stem.conv.weight"), "Conv", "fp32", 2.0),
        # The input is named after the previous layer, the weight after this layer.
        NodeTime(("val_1", "stem.act", "blocks.1.0.conv.weight"), "QLinearConv", "int8", 1.0),
        NodeTime(("to_fp32",), "Cast", "fp32", 0.125),
        NodeTime(("pool", "stem.act"), "AveragePool", "fp32", 0.5),
        NodeTime((), "aten::add", "unknown", 0.0625),
        NodeTime(("logits",), "FullyConnected", "bf16", 4.0),
    )
    assert attribute(times, 20, LAYERS, 3) == LayerTimes(
        runs=20,
        layers=(
            STEM,
            LayerTime(
                name="blocks.1.0.conv",
                type="Conv DW 3x3",
                precision="int8",
                median_ms=1.0,
                mult_adds=300,
                moved_bytes=3 * (2048 + 2048) + 72,
            ),
            LayerTime(
                name="classifier",
                type="Fully connected",
                precision="bf16",
                median_ms=4.0,
                mult_adds=1800,
                moved_bytes=2 * (3 * (8 + 10) + 80),
            ),
        ),
        moves_ms=0.375,
        other_ms=0.5625,
    )


def test_an_unfused_activation_adds_to_its_layer_and_layers_without_a_node_are_left_out() -> None:
    times = (NodeTime(("stem.conv",), "Conv", "fp32", 1.5), NodeTime(("stem.act", "stem.conv"), "Clip", "fp32", 0.5))
    assert attribute(times, 20, LAYERS, 3) == LayerTimes(runs=20, layers=(STEM,), moves_ms=0.0, other_ms=0.0)


def test_the_time_of_a_node_that_executes_two_layers_is_divided_by_mult_adds() -> None:
    times = (NodeTime(("stem.conv", "blocks.1.0.conv"), "Convolution", "fp32", 8.0),)
    layers = attribute(times, 5, LAYERS, 1).layers
    assert [(layer.name, layer.median_ms) for layer in layers] == [("stem.conv", 6.0), ("blocks.1.0.conv", 2.0)]


def test_an_unknown_precision_counts_as_four_bytes() -> None:
    layer_times = attribute((NodeTime(("classifier",), "Gemm", "tf32", 1.0),), 5, LAYERS, 1)
    assert layer_times.layers[0].moved_bytes == 4 * (8 + 10 + 80)
