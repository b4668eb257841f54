"""Costs of ONNX graphs: against PyTorch's own counter, the built-in networks, and published numbers."""

from pathlib import Path

import onnx
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mbbench.graphs.fx import to_module
from mbbench.graphs.normalize import normalize
from mbbench.graphs.onnx import to_onnx
from mbbench.graphs.read import load, signature
from mbbench.models import build, fold_batch_norm
from mbbench.models.graph_cost import count_graph
from mbbench.spec import ModelSpec

from .counting import count

LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"
# Mult-Adds and parameters; the parameters of ResNet-50, VGG-19 and AlexNet are those of their authors' networks.
COUNTS = {
    "bvlc_alexnet": (654_560_384, 60_965_224),
    "densenet121": (2_834_161_664, 8_062_504),
    "inception_v1": (1_431_556_352, 6_998_552),
    "inception_v2": (2_018_851_840, 11_214_888),
    "resnet50": (4_089_184_256, 25_557_032),
    "shufflenet": (124_664_528, 1_393_320),
    "squeezenet": (349_151_936, 1_235_496),
    "vgg19": (19_632_062_464, 143_667_240),
    "zfnet512": (1_481_727_008, 87_250_536),
}


@pytest.mark.parametrize("name", COUNTS)
def test_onnxs_own_networks_are_counted(name: str) -> None:
    cost = count_graph(load(LIGHT / f"light_{name}.onnx"))
    assert (cost.mult_adds, cost.parameters) == COUNTS[name]


@pytest.mark.parametrize(
    "name", [name if name in ("squeezenet", "shufflenet", "resnet50", "densenet121", "inception_v1", "inception_v2")
             else pytest.param(name, marks=pytest.mark.slow) for name in COUNTS],
)  # fmt: skip
def test_pytorchs_counter_agrees(name: str) -> None:
    """An independent counter: FLOPs that PyTorch counts while the normal form runs on the meta device."""
    path = LIGHT / f"light_{name}.onnx"
    model = load(path)
    module = to_module(normalize(model, signature(model, path), 224, 224)).to("meta")
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        module(torch.empty(1, 3, 224, 224, device="meta"))
    assert counter.get_total_flops() == 2 * COUNTS[name][0]


@pytest.mark.parametrize(
    "spec",
    [
        ModelSpec(alpha=0.5, resolution=128),
        ModelSpec(alpha=0.25, resolution=64, variant="full-conv"),
        ModelSpec("squeezenet1_1", resolution=64, classes=10),
        ModelSpec("mobilenet_v2", alpha=0.35, resolution=64, classes=10),
        pytest.param(ModelSpec("vgg16"), marks=pytest.mark.slow),
    ],
    ids=lambda spec: spec.label,
)
def test_a_built_in_network_is_counted_as_its_module_is(spec: ModelSpec) -> None:
    folded = fold_batch_norm(build(spec))
    for name, parameter in folded.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.ones_(parameter)  # the exporter drops a bias of zeros
    expected, counted = count(folded, spec.resolution), count_graph(to_onnx(folded, spec.resolution))
    assert [
        (layer.name, layer.type, layer.mult_adds, layer.weights, layer.parameters, layer.inputs)
        for layer in counted.layers
    ] == [
        (layer.name, layer.type, layer.mult_adds, layer.weights, layer.parameters, layer.inputs)
        for layer in expected.layers
    ]
