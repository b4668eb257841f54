"""Which network a checkpoint fits, and what is said if it is another one."""

from pathlib import Path

import pytest
import torch

from mbbench.errors import UsageError
from mbbench.models import build
from mbbench.spec import ModelSpec
from mbbench.weights import fit
from mbbench.weights.importers import State

PATH = Path("x.pth")
SMALL = ModelSpec(alpha=0.25, resolution=32, classes=7)
VGG = ModelSpec(family="vgg16", resolution=32, classes=7)
GOOGLENET = ModelSpec(family="googlenet", resolution=32, classes=7)
_TIMM = {"0.conv": "conv_dw", "0.bn": "bn1", "1.conv": "conv_pw", "1.bn": "bn2"}


def state_of(spec: ModelSpec) -> State:
    """Return the network's tensors, without memory for them."""
    with torch.device("meta"):
        return build(spec).state_dict()


def timm_state(spec: ModelSpec) -> State:
    """Return MobileNetV1 under timm's names: 13 blocks in stages of 1, 2, 2, 6 and 2."""
    stages = [(stage, index) for stage, count in enumerate((1, 2, 2, 6, 2)) for index in range(count)]
    state = {}
    for name, tensor in state_of(spec).items():
        module, _, parameter = name.rpartition(".")
        if module.startswith("blocks."):
            _, block, rest = module.split(".", 2)
            module = "blocks.{}.{}.".format(*stages[int(block)]) + _TIMM[rest]
        module = {"stem.conv": "conv_stem", "stem.bn": "bn1"}.get(module, module)
        state[f"{module}.{parameter}"] = tensor
    return state


def vgg_bn_state() -> State:
    """Return VGG16 with a batch norm after each convolution, under torchvision's names."""
    state, number = {}, 0
    for name, tensor in state_of(VGG).items():
        part, index, parameter = name.split(".")
        if part == "classifier":
            state[name] = tensor
            continue
        shift = sum(1 for other in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28) if other < int(index))
        number = int(index) + shift
        state[f"features.{number}.{parameter}"] = tensor
        for statistic in ("weight", "bias", "running_mean", "running_var"):
            state[f"features.{number + 1}.{statistic}"] = torch.empty(len(tensor), device="meta")
    return state


def keras_state(spec: ModelSpec) -> State:
    kernel = torch.empty(3, 3, 3, 8, device="meta")
    return {"conv1/kernel": kernel, "conv_dw_1/depthwise_kernel": kernel}


@pytest.mark.parametrize(
    ("kind", "tensors", "spec", "message"),
    [
        (None, timm_state(SMALL), SMALL, "x.pth holds timm's MobileNetV1; give --weights timm:x.pth"),
        ("torchvision", timm_state(SMALL), SMALL, "x.pth holds timm's MobileNetV1; give --weights timm:x.pth"),
        ("keras", timm_state(SMALL), SMALL, "x.pth holds timm's MobileNetV1; give --weights timm:x.pth"),
        ("timm", state_of(SMALL), SMALL, "x.pth holds mbbench's MobileNetV1; give --weights x.pth"),
        (
            "timm",
            timm_state(ModelSpec(alpha=1.25, classes=7)),
            ModelSpec(),
            "x.pth holds timm's MobileNetV1 of alpha 1.25; give --alpha 1.25",
        ),
        (
            None,
            timm_state(ModelSpec(alpha=0.5, classes=7)),
            VGG,
            "x.pth holds timm's MobileNetV1 of alpha 0.5;"
            " give --weights timm:x.pth --model mobilenet_v1 --alpha 0.5",
        ),
        ("timm", timm_state(ModelSpec()), VGG, "x.pth holds timm's MobileNetV1; give --model mobilenet_v1"),
        (None, state_of(VGG), ModelSpec(), "x.pth holds torchvision's VGG16; give --model vgg16"),
        (None, state_of(GOOGLENET), VGG, "x.pth holds torchvision's GoogLeNet; give --model googlenet"),
        ("torchvision", state_of(VGG), GOOGLENET, "x.pth holds torchvision's VGG16; give --model vgg16"),
        (
            "timm",
            state_of(VGG),
            ModelSpec(),
            "x.pth holds torchvision's VGG16; give --weights torchvision:x.pth --model vgg16",
        ),
        (
            None,
            state_of(SMALL),
            VGG,
            "x.pth holds mbbench's MobileNetV1 of alpha 0.25; give --model mobilenet_v1 --alpha 0.25",
        ),
        (
            None,
            state_of(ModelSpec(variant="shallow")),
            ModelSpec(),
            "x.pth holds mbbench's shallow MobileNetV1; give --variant shallow",
        ),
        (
            None,
            state_of(ModelSpec(variant="full-conv")),
            ModelSpec(variant="shallow"),
            "x.pth holds mbbench's full-conv MobileNetV1; give --variant full-conv",
        ),
        (
            None,
            {"conv1.weight": torch.ones(1), "bn1.bias": torch.ones(1), "layer1.0": torch.ones(1), "a": torch.ones(1)},
            SMALL,
            "x.pth does not hold mbbench's MobileNetV1: its tensors are conv1.weight, bn1.bias, layer1.0, ...;"
            " give a checkpoint that matches --model, or import one: keras:FILE, timm:FILE, torchvision:FILE",
        ),
        (
            "timm",
            {"conv1.weight": torch.ones(1)},
            VGG,
            "timm:FILE does not read VGG16-32; give --model mobilenet_v1 or xception",
        ),
        (
            "timm",
            {"conv1.weight": torch.ones(1)},
            ModelSpec(variant="shallow"),
            "timm:FILE does not read Shallow 1.0 MobileNet-224; leave out --variant",
        ),
        (
            "timm",
            {"conv1.weight": torch.ones(1), "a": torch.ones(1)},
            SMALL,
            "x.pth does not hold timm's MobileNetV1: its tensors are conv1.weight, a;"
            " give a checkpoint of timm's MobileNetV1",
        ),
    ],
)  # fmt: skip
def test_what_a_file_holds_and_the_options_for_it_are_named(
    kind: str | None, tensors: State, spec: ModelSpec, message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        fit.convert(kind, tensors, spec, PATH)
    assert str(caught.value) == message


def test_vgg16_with_batch_norm_needs_the_importer() -> None:
    with pytest.raises(UsageError, match=r"^x\.pth holds torchvision's VGG16; give --weights torchvision:x\.pth$"):
        fit.convert(None, vgg_bn_state(), VGG, PATH)


def test_the_first_difference_is_named_if_most_names_are_right() -> None:
    tensors = state_of(SMALL)
    del tensors["blocks.3.0.bn.weight"]
    with pytest.raises(UsageError, match=r"^a tensor is missing from x\.pth: blocks\.3\.0\.bn\.weight; give"):
        fit.convert(None, tensors, SMALL, PATH)
    with pytest.raises(UsageError, match=r"^x\.pth has an unexpected tensor: head\.weight; give"):
        fit.convert(None, state_of(SMALL) | {"head.weight": torch.ones(1)}, SMALL, PATH)


@pytest.mark.parametrize("family", ["densenet", "mobilenet_v2", "no_bias"])
def test_batch_norms_of_other_networks_are_not_folded(family: str) -> None:
    names = {
        "densenet": ("features.conv0.weight", "features.norm0.running_var", "classifier.weight"),
        "mobilenet_v2": ("features.0.0.weight", "features.0.1.running_var", "classifier.1.weight"),
        "no_bias": ("features.0.weight", "features.1.running_var", "classifier.1.weight"),
    }[family]
    with pytest.raises(UsageError, match=f"does not hold torchvision's VGG16: its tensors are {names[0]}"):
        fit.convert("torchvision", {name: torch.ones(2, 2) for name in names}, VGG, PATH)


def test_the_spec_of_the_result_is_that_of_the_file() -> None:
    state, spec = fit.convert("timm", timm_state(SMALL), ModelSpec(alpha=0.25, resolution=32), PATH)
    assert spec == SMALL
    assert state.keys() == state_of(SMALL).keys()
