"""The precision of each layer, from nodes named as runtimes name them."""

from mbbench.analysis.executed import audit, describe_fallback
from mbbench.backend import Executed
from mbbench.models.cost import Layer
from mbbench.result import PrecisionShare

LAYERS = (
    Layer("stem.conv", "Conv 3x3", (8, 16, 16), 300, 216, 232, 3072),
    Layer("blocks.1.0.conv", "Conv DW 3x3", (8, 16, 16), 100, 72, 88, 2048),
    Layer("classifier", "Fully connected", (10,), 600, 80, 90, 8),
)


def test_layers_are_matched_to_nodes_by_derived_names() -> None:
    info = audit(
        (
            Executed(("images",), "Input", "fp32"),
            Executed(("classifier.weight",), "Const", "fp32"),
            Executed(("q", "stem.conv/WithoutBiases"), "Reorder", "fp32"),
            Executed(("stem.conv/WithoutBiases", "stem.act"), "Convolution", "int8"),
            Executed(("blocks.1.0.act_nchwc", "x", "blocks.1.0.conv.bias"), "Conv", "fp32"),
            Executed(("blocks.1.1.conv_token_3",), "QLinearConv", "int8"),
            Executed(("logits",), "FullyConnected", "int8"),
        ),
        LAYERS,
    )
    assert info.shares == (
        PrecisionShare(precision="int8", mult_adds_share=0.9, layers=2),
        PrecisionShare(precision="fp32", mult_adds_share=0.1, layers=1),
    )
    assert info.fp32_layers == ("blocks.1.0.conv",)
    assert info.moves == 1


def test_a_layer_without_a_node_is_unknown() -> None:
    info = audit((Executed(("stem.convolution",), "Conv", "int8"),), LAYERS[:1])
    assert info.shares == (PrecisionShare(precision="unknown", mult_adds_share=1.0, layers=1),)


def test_fallback_excludes_layers_that_may_run_in_fp32() -> None:
    mixed = audit(
        (Executed(("stem.conv",), "Conv", "fp32"), Executed(("blocks.1.0.conv", "classifier"), "Conv", "int8")),
        LAYERS,
    )
    assert describe_fallback(mixed, "int8", ()) == "30.0 % of Mult-Adds (1 layer) ran in fp32"
    assert describe_fallback(mixed, "int8", ("stem.conv", "stem.act")) is None
    assert describe_fallback(mixed, "fp32", ()) == "70.0 % of Mult-Adds (2 layers) ran in int8"
