import math
from importlib import import_module
from typing import Any

import msgspec
import pytest

from mbbench.errors import UsageError
from mbbench.families import FAMILIES
from mbbench.spec import ModelSpec, Preprocessing, PreprocessingOptions, Settings, content_key
from mbbench.spec.bounds import BOUNDS


@pytest.mark.parametrize(
    ("spec", "label"),
    [
        (ModelSpec(), "1.0 MobileNet-224"),
        (ModelSpec(alpha=0.5, resolution=128), "0.5 MobileNet-128"),
        (ModelSpec(alpha=0.75), "0.75 MobileNet-224"),
        (ModelSpec(variant="full-conv"), "Conv 1.0 MobileNet-224"),
        (ModelSpec(variant="shallow", resolution=160), "Shallow 1.0 MobileNet-160"),
        (ModelSpec(family="vgg16"), "VGG16-224"),
        (ModelSpec(family="googlenet", resolution=96), "GoogLeNet-96"),
        (ModelSpec(family="googlenet", variant="5x5"), "5x5 GoogLeNet-224"),
        (ModelSpec(family="alexnet", variant="grouped"), "Grouped AlexNet-224"),
        (ModelSpec(family="mobilenet_v2", alpha=0.5, resolution=128), "0.5 MobileNetV2-128"),
        (ModelSpec(family="squeezenet1_1"), "SqueezeNet 1.1-224"),
        (ModelSpec(family="inception_v3", resolution=299), "Inception V3-299"),
        (ModelSpec(alpha=0.5, widths=(8,) * 14), "0.5 MobileNet-224 pruned"),
        (ModelSpec("onnx", resolution=240, width=320, name="mine"), "mine-320x240"),
    ],
)
def test_labels_are_in_the_papers_style(spec: ModelSpec, label: str) -> None:
    assert spec.label == label


@pytest.mark.parametrize("alpha", [0.0, -1.0, 8.1, 1000.0, math.nan, math.inf])
def test_an_alpha_out_of_range_is_refused(alpha: float) -> None:
    with pytest.raises(UsageError, match=r"--alpha is out of range: .*; give more than 0 and at most 8, such as 0.25"):
        ModelSpec(alpha=alpha)


@pytest.mark.parametrize("resolution", [-1, 0, 31, 2049])
def test_a_resolution_out_of_range_is_refused(resolution: int) -> None:
    with pytest.raises(UsageError, match=f"--res of MobileNet is out of range: {resolution} pixels; give 32 to 2048"):
        ModelSpec(resolution=resolution)


@pytest.mark.parametrize(
    ("family", "smallest"),
    [("alexnet", 63), ("inception_v3", 75), ("xception", 32), ("squeezenet1_0", 32)],
)
def test_every_family_has_a_smallest_resolution(family: str, smallest: int) -> None:
    assert ModelSpec(family, resolution=smallest).resolution == smallest
    message = (
        f"--res of {FAMILIES[family].label} is out of range: {smallest - 1} pixels; give {smallest} to 2048 pixels"
    )
    with pytest.raises(UsageError, match=message):
        ModelSpec(family, resolution=smallest - 1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"family": "vgg16", "alpha": 0.5}, "VGG16 has no width multiplier: 0.5; omit --alpha"),
        ({"family": "vgg16", "variant": "5x5"}, "VGG16 has no variant '5x5'; omit --variant"),
        (
            {"family": "googlenet", "variant": "shallow"},
            "GoogLeNet has no variant 'shallow'; choose one of standard, 5x5",
        ),
        ({"variant": "deep"}, "MobileNet has no variant 'deep'; choose one of standard, full-conv, shallow"),
        (
            {"family": "resnet"},
            "unknown model: 'resnet'; choose one of mobilenet_v1, vgg16, googlenet, mobilenet_v2, squeezenet1_0,"
            " squeezenet1_1, alexnet, inception_v3, xception, or give an ONNX file",
        ),
    ],
)
def test_what_a_family_lacks_is_refused_in_one_line(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        ModelSpec(**fields)
    assert str(caught.value) == message


def test_every_family_has_a_table_and_a_class_in_mbbench_models() -> None:
    for info in FAMILIES.values():
        module, _, name = info.network.partition(":")
        assert hasattr(import_module(f"mbbench.models.modules.{module}"), name)
        assert callable(import_module(f"mbbench.models.{info.module}").trace)


def test_a_stored_network_is_decoded_and_an_unknown_family_refused() -> None:
    stored = b'{"family":"googlenet","alpha":1.0,"resolution":96,"classes":10,"variant":"standard"}'
    assert msgspec.json.decode(stored, type=ModelSpec) == ModelSpec("googlenet", resolution=96, classes=10)
    with pytest.raises(UsageError, match="unknown model: 'resnet'"):
        msgspec.json.decode(b'{"family":"resnet"}', type=ModelSpec)


def test_a_content_key_depends_on_every_part() -> None:
    keys = {content_key(*parts) for parts in ([1, 2], [2, 1], [12], [1, "2"], [ModelSpec()], [ModelSpec(alpha=0.5)])}
    assert len(keys) == 6
    assert content_key({"a": 1, "b": 2}) == content_key({"b": 2, "a": 1})
    assert content_key(ModelSpec()) == content_key(ModelSpec())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("threads", 0), ("batch", -1), ("min_s", 0.0), ("max_s", math.nan), ("timeout_s", 86_400.0), ("streams", 0),
        ("scenario_s", 0.0),
    ],
)  # fmt: skip
def test_a_setting_out_of_range_is_refused_by_its_name(field: str, value: float) -> None:
    with pytest.raises(UsageError, match=f"^{BOUNDS[field].name} is out of range: "):
        Settings(**{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("bound", [0.0, -1.0, math.nan])
def test_a_bound_that_is_not_positive_is_refused(bound: float) -> None:
    with pytest.raises(UsageError, match=r"--bound is out of range: .*ms; give more than 0ms and at most 60000ms"):
        Settings(bound_ms=bound)


def test_a_maximum_time_below_the_minimum_is_refused() -> None:
    with pytest.raises(UsageError, match="max_s 1 is below min_s 2"):
        Settings(min_s=2.0, max_s=1.0)


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"mean": (0.5, 0.5)}, "--mean is out of range: 0.5,0.5; give red, green and blue, each -1 to 1: divide"),
        (
            {"mean": (123.7, 116.3, 103.5)},
            "--mean is .*: 123.7,116.3,103.5; .* divide numbers for pixels from 0 to 255 by 255",
        ),
        ({"mean": (0.5, math.nan, 0.5)}, "--mean is out of range: 0.5,nan,0.5"),
        ({"std": (0.5, 0.0, 0.5)}, "--std is out of range: 0.5,0,0.5; give red, green and blue, each 0.001 to 1"),
        ({"std": (58.4, 57.1, 57.4)}, "--std is out of range: 58.4,57.1,57.4"),
        ({"std": (math.inf, 1.0, 1.0)}, "--std is out of range: inf,1,1"),
        ({"crop": 0.2}, "--crop is out of range: 0.2; give 0.25 to 1, a share such as 0.875"),
        ({"crop": 87.5}, "--crop is out of range: 87.5"),
        ({"crop": math.nan}, "--crop is out of range: nan"),
        (
            {"interpolation": "cubic"},
            "unknown interpolation: 'cubic'; did you mean bicubic. choose one of nearest, bilinear, bicubic, lanczos",
        ),
        ({"channels": "gbr"}, "unknown channels: 'gbr'; choose one of rgb, bgr"),
    ],
)
def test_preprocessing_out_of_range_is_refused_in_options_too(values: dict[str, Any], error: str) -> None:
    for kind in (Preprocessing, PreprocessingOptions):
        with pytest.raises(UsageError, match=error):
            kind(**values)


def test_options_replace_only_what_they_name() -> None:
    usual = Preprocessing(mean=(0.4, 0.5, 0.6), interpolation="bicubic")
    assert PreprocessingOptions().applied_to(usual) == usual
    caffe = PreprocessingOptions(std=(1 / 255,) * 3, channels="bgr")
    assert caffe.applied_to(usual) == Preprocessing(
        mean=(0.4, 0.5, 0.6), std=(1 / 255,) * 3, interpolation="bicubic", channels="bgr"
    )
