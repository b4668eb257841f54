from collections.abc import Callable
from dataclasses import replace

import pytest

from mbbench.report.names import namer, runtime_label
from mbbench.result import Result


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
