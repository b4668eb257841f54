from mbbench.analysis.executed import audit, fell_back
from mbbench.backend import Executed
from mbbench.models.cost import Layer
from mbbench.result import PrecisionShare

COUNTED = (
    Layer("stem.conv", "Conv 3x3", (8, 16, 16), 300, 216, 232, 3072),
    Layer("blocks.1.0.conv", "Conv DW 3x3", (8, 16, 16), 100, 72, 88, 2048),
    Layer("classifier", "Fully connected", (10,), 600, 80, 90, 8),
)


def test_layers_are_found_under_the_names_that_runtimes_make_of_theirs() -> None:
    found = audit(
        (
            Executed(("images",), "Input", "fp32"),
            Executed(("classifier.weight",), "Const", "fp32"),
            Executed(("q", "stem.conv/WithoutBiases"), "Reorder", "fp32"),
            Executed(("stem.conv/WithoutBiases", "stem.act"), "Convolution", "int8"),
            Executed(("blocks.1.0.act_nchwc", "x", "blocks.1.0.conv.bias"), "Conv", "fp32"),
            Executed(("blocks.1.1.conv_token_3",), "QLinearConv", "int8"),
            Executed(("logits",), "FullyConnected", "int8"),
        ),
        COUNTED,
    )
    assert found.shares == (
        PrecisionShare(precision="int8", mult_adds_share=0.9, layers=2),
        PrecisionShare(precision="fp32", mult_adds_share=0.1, layers=1),
    )
    assert found.fp32_layers == ("blocks.1.0.conv",)
    assert found.moves == 1


def test_a_layer_that_no_node_bears_is_unknown() -> None:
    found = audit((Executed(("stem.convolution",), "Conv", "int8"),), COUNTED[:1])
    assert found.shares == (PrecisionShare(precision="unknown", mult_adds_share=1.0, layers=1),)


def test_falling_back_is_what_was_not_asked_for() -> None:
    mixed = audit(
        (Executed(("stem.conv",), "Conv", "fp32"), Executed(("blocks.1.0.conv", "classifier"), "Conv", "int8")),
        COUNTED,
    )
    assert fell_back(mixed, "int8", ()) == "30.0% of Mult-Adds (1 layers) ran in fp32"
    assert fell_back(mixed, "int8", ("stem.conv", "stem.act")) is None
    assert fell_back(mixed, "fp32", ()) == "70.0% of Mult-Adds (2 layers) ran in int8"
