"""Which results belong together, with several machines, batches, threads, weights and data sets in one file."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from mbbench.analysis.pairing import baselines_of, compression_pairs, fp32_pairs, representatives
from mbbench.result import LabelsInfo, Result
from mbbench.spec import ModelSpec, Preprocessing
from mbbench.stats import Interval

Make = Callable[..., Result]
WHOLE = ModelSpec(alpha=0.5, resolution=128, classes=10)
PRUNED = replace(WHOLE, widths=(8,) * 14)


def changed(result: Result, *, settings: dict[str, Any] | None = None, machine: str = "", **cell: Any) -> Result:
    return replace(
        result,
        cell=replace(result.cell, **cell),
        settings=replace(result.settings, **(settings or {})),
        machine=replace(result.machine, cpu=machine or result.machine.cpu),
    )


def with_interval(result: Result, half_width: float, id: str) -> Result:
    latency = result.measured.latency
    assert latency is not None
    interval = Interval(latency.median_ms * (1 - half_width), latency.median_ms * (1 + half_width))
    return replace(result, id=id, measured=replace(result.measured, latency=replace(latency, median_ci95_ms=interval)))


def test_the_setup_has_the_resolved_device_and_old_records_that_of_the_cpu(make_result: Make) -> None:
    default, named = make_result(), changed(make_result(), device="CPU")
    assert default.setup == named.setup
    assert default.setup.on_cpu
    gpu = changed(make_result(backend="tensorrt"), device="cuda:0")
    assert (gpu.setup.device, gpu.setup.on_cpu) == ("cuda:0", False)
    facts = {"device": "NVIDIA H100 (compute capability 9.0)"}
    old_gpu = replace(make_result(backend="tensorrt"), measured=replace(make_result().measured, effective=facts))
    assert not old_gpu.setup.on_cpu


def test_the_setup_ignores_nothing_that_matters(make_result: Make) -> None:
    result = make_result()
    others = [
        changed(result, precision="int8"),
        changed(result, model=PRUNED),
        changed(result, weights="keras:a.h5"),
        changed(result, settings={"threads": 2}),
        changed(result, settings={"batch": 8}),
        changed(result, machine="another"),
        replace(result, data=None),
        replace(result, preprocessing=Preprocessing(channels="bgr")),
        replace(result, labels=LabelsInfo(source="file", names={}, key="ff")),
    ]
    assert len({result.setup, *(other.setup for other in others)}) == len(others) + 1
    assert others[0].setup.same_but(precision="fp32") == result.setup
    assert replace(result, labels=LabelsInfo(source="order", names={0: "a"})).setup == result.setup


def test_a_baseline_has_its_own_preprocessing(make_result: Make) -> None:
    subject = replace(make_result(WHOLE), preprocessing=Preprocessing(mean=(0.485, 0.456, 0.406)))
    baseline = make_result(ModelSpec("vgg16", resolution=128, classes=10), "baseline")
    assert baselines_of(subject, [subject, baseline]) == [baseline]


def test_a_later_quick_result_does_not_replace_a_more_precise_one(make_result: Make) -> None:
    precise, quick = with_interval(make_result(), 0.002, "precise"), with_interval(make_result(), 0.05, "quick")
    assert representatives([precise, quick]) == [precise]
    assert representatives([quick, precise]) == [precise]
    repeated = with_interval(make_result(), 0.002, "repeated")
    assert representatives([precise, repeated]) == [repeated]


def test_a_result_of_newer_versions_replaces_a_more_precise_one(make_result: Make) -> None:
    precise = with_interval(make_result(), 0.002, "precise")
    upgraded = replace(with_interval(make_result(), 0.05, "upgraded"), versions={"openvino": "2027.0"})
    assert representatives([precise, upgraded]) == [upgraded]


def test_threads_and_batches_are_other_setups(make_result: Make) -> None:
    result = make_result()
    others = [changed(result, settings={"threads": 2}), changed(result, settings={"batch": 8})]
    assert representatives([result, *others]) == [result, *others]


def test_int8_is_paired_with_fp32_of_the_same_batch_threads_and_machine(make_result: Make) -> None:
    """With batches 1 and 8 stored, int8 at batch 1 takes 0.5 of fp32's time, and not 0.06."""
    fp32, fp32_of_8 = make_result(), changed(make_result(scale=8.0), settings={"batch": 8})
    on_b = changed(make_result(scale=3.0), machine="B")
    int8 = changed(make_result(scale=0.5), precision="int8")
    for stored in ([fp32, fp32_of_8, on_b, int8], [on_b, fp32_of_8, int8, fp32]):
        assert fp32_pairs(stored) == [(int8, fp32)]
    assert fp32_pairs([fp32_of_8, on_b, int8]) == []


def test_test_images_may_differ_between_partners(make_result: Make) -> None:
    fp32, int8 = make_result(), changed(make_result(), precision="int8")
    assert int8.data is not None
    fewer = replace(int8, data=replace(int8.data, images=40, fingerprint="forty"))
    assert fp32_pairs([fp32, fewer]) == [(fewer, fp32)]


def test_a_pruned_network_is_paired_with_the_whole_network_in_fp32(make_result: Make) -> None:
    whole = make_result(WHOLE)
    pruned = changed(make_result(PRUNED), weights="half.safetensors")
    pruned_int8 = changed(pruned, precision="int8")
    assert compression_pairs([pruned_int8, whole, pruned]) == [(pruned_int8, whole), (pruned, whole)]
    int8 = changed(make_result(WHOLE), precision="int8")
    assert compression_pairs([whole, int8]) == [(int8, whole)]


@pytest.mark.parametrize("difference", [{"threads": 2}, {"batch": 8}])
def test_baselines_were_measured_as_the_subject_was(make_result: Make, difference: dict[str, int]) -> None:
    subject = make_result(replace(WHOLE, resolution=224))
    vgg16 = make_result(ModelSpec(family="vgg16", classes=10), "baseline", scale=40.0)
    other = changed(vgg16, settings=difference)
    assert baselines_of(subject, [subject, vgg16, other]) == [vgg16]
    assert baselines_of(changed(subject, settings=difference), [subject, vgg16, other]) == [other]
    assert baselines_of(changed(subject, precision="int8"), [vgg16]) == [vgg16]
    assert baselines_of(make_result(WHOLE), [vgg16]) == []


def test_a_baseline_may_have_the_smallest_resolution_that_it_accepts(make_result: Make) -> None:
    subject = make_result(ModelSpec(alpha=0.25, resolution=32, classes=10))
    alexnet = make_result(ModelSpec("alexnet", resolution=63, classes=10), "baseline")
    assert baselines_of(subject, [subject, alexnet]) == [alexnet]
    assert baselines_of(make_result(ModelSpec(alpha=0.25, resolution=64, classes=10)), [alexnet]) == []


def test_baselines_of_a_rectangular_network_have_its_longer_side(make_result: Make) -> None:
    subject = make_result(ModelSpec("onnx", resolution=160, width=224, classes=10, name="mine", sha256="0" * 64))
    of_160, of_224 = (
        make_result(ModelSpec("vgg16", resolution=side, classes=10), "baseline", scale=40.0) for side in (160, 224)
    )
    assert baselines_of(subject, [of_160, of_224]) == [of_224]
