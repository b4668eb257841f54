from collections.abc import Callable
from dataclasses import replace

import pytest

from mbbench.report.names import class_label, labels_label, namer, preprocessing_label, runtime_label
from mbbench.result import LabelsInfo, Result
from mbbench.spec import ModelSpec, Preprocessing


@pytest.mark.parametrize(
    ("backend", "distribution"),
    [
        ("openvino", "openvino"),
        ("torch-eager", "torch"),
        ("litert", "ai-edge-litert"),
        ("tensorrt", "tensorrt-rtx-cu13"),
    ],
)
def test_a_runtime_label_has_its_version(make_result: Callable[..., Result], backend: str, distribution: str) -> None:
    result = make_result(backend=backend)
    versioned = replace(result, versions={"mbbench": "0.1.0", "numpy": "2.4.6", distribution: "1.2.3"})
    assert runtime_label(versioned) == f"{backend} 1.2.3"


def test_a_name_says_whatever_distinguishes_a_result_from_the_others(make_result: Callable[..., Result]) -> None:
    result = make_result()
    batch = replace(result, settings=replace(result.settings, batch=8))
    threads = replace(result, settings=replace(result.settings, threads=2))
    machine = replace(result, machine=replace(result.machine, cpu="Other CPU"))
    label = "0.5 MobileNet-128 on openvino"
    assert namer([result])(result) == label
    for other, names in (
        (batch, [f"{label}, batch 1", f"{label}, batch 8"]),
        (threads, [f"{label}, 1 thread", f"{label}, 2 threads"]),
        (machine, [f"{label}, Test CPU", f"{label}, Other CPU"]),
    ):
        assert [*map(namer([result, other]), [result, other])] == names


def test_machines_with_the_same_cpu_are_told_apart_by_id(make_result: Callable[..., Result]) -> None:
    result = make_result()
    twin = replace(result, machine=replace(result.machine, memory_bytes=2**30))
    names = [*map(namer([result, twin]), [result, twin])]
    assert names == [f"0.5 MobileNet-128 on openvino, Test CPU ({r.machine.id})" for r in (result, twin)]
    assert names[0] != names[1]


def test_weights_and_images_appear_only_if_nothing_else_tells_results_apart(make_result: Callable[..., Result]) -> None:
    trained = make_result()
    imported = replace(trained, cell=replace(trained.cell, weights="some/folder/mine.safetensors"))
    name = namer([trained, imported, make_result(backend="torch")])
    assert name(trained) == "0.5 MobileNet-128 on openvino, trained"
    assert name(imported) == "0.5 MobileNet-128 on openvino, weights mine.safetensors"


def test_a_preprocessing_label_names_the_default_and_whatever_differs(make_result: Callable[..., Result]) -> None:
    result = make_result()
    vgg16 = make_result(ModelSpec("vgg16", classes=10))
    imagenet = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    other = Preprocessing(mean=(0.4, 0.5, 0.25), std=(1 / 255,) * 3, crop=1.0, interpolation="bicubic", channels="bgr")
    for of, preprocessing, label in (
        (result, None, "pixels from -1 to 1"),
        (vgg16, None, "ImageNet's mean and std"),
        (result, imagenet, "ImageNet's mean and std"),
        (vgg16, Preprocessing(), "pixels from -1 to 1"),
        (result, other, "mean 0.4,0.5,0.25, std 0.00392157,0.00392157,0.00392157, crop 1, bicubic, BGR"),
    ):
        assert preprocessing_label(replace(of, preprocessing=preprocessing)) == label
    special = replace(result, preprocessing=imagenet)
    label = "0.5 MobileNet-128 on openvino"
    assert [*map(namer([result, special]), [result, special])] == [
        f"{label}, pixels from -1 to 1", f"{label}, ImageNet's mean and std",
    ]  # fmt: skip


def test_labels_are_described_only_if_they_were_mapped(make_result: Callable[..., Result]) -> None:
    result = make_result()
    for labels, label in (
        (None, ""),
        (LabelsInfo(source="order", names={0: "a"}), ""),
        (LabelsInfo(source="imagenet", names={}), ""),
        (LabelsInfo(source="imagenet", names={}, key="f"), "10 of ImageNet's 1000 classes"),
        (LabelsInfo(source="file", names={}, key="f"), "classes mapped by --labels"),
        (
            LabelsInfo(source="imagenet", names={}, background=True, key="f"),
            "10 of ImageNet's 1000 classes, one output later, after the background",
        ),
        (LabelsInfo(source="order", names={}, background=True, key="f"), "one output later, after the background"),
    ):
        assert labels_label(replace(result, labels=labels)) == label


def test_a_class_has_the_name_of_its_folder_or_of_imagenet() -> None:
    assert class_label(3, None) == "class 3"
    assert class_label(3, LabelsInfo(source="order", names={3: "shirt"})) == "class shirt"
    assert class_label(4, LabelsInfo(source="order", names={3: "shirt"})) == "class 4"
    assert class_label(217, LabelsInfo(source="imagenet", names={})) == "class English springer (output 217)"
    assert (
        class_label(218, LabelsInfo(source="imagenet", names={}, background=True))
        == "class English springer (output 218)"
    )
