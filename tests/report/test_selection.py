from collections.abc import Callable
from dataclasses import replace

from mbbench.report import selection
from mbbench.result import Result
from mbbench.spec import ModelSpec

Make = Callable[..., Result]


def with_top1(make: Make, alpha: float, scale: float, top1: float) -> Result:
    result = make(ModelSpec(alpha=alpha, classes=10), scale=scale)
    assert result.measured.accuracy is not None
    accuracy = replace(result.measured.accuracy, top1=top1)
    return replace(result, measured=replace(result.measured, accuracy=accuracy))


def test_the_front_has_every_result_that_is_not_dominated(make_result: Make) -> None:
    fast, accurate = with_top1(make_result, 0.25, 1.0, 0.90), with_top1(make_result, 0.5, 2.0, 0.95)
    dominated, equal_but_slow, best = (
        with_top1(make_result, 0.3, 1.5, 0.89),
        with_top1(make_result, 0.6, 3.0, 0.95),
        with_top1(make_result, 1.0, 4.0, 0.97),
    )
    assert selection.pareto_front([best, equal_but_slow, dominated, accurate, fast]) == [fast, accurate, best]


def test_of_two_equally_fast_results_the_more_accurate_is_on_the_front(make_result: Make) -> None:
    worse, accurate = with_top1(make_result, 0.25, 1.0, 0.90), with_top1(make_result, 0.5, 1.0, 0.95)
    assert selection.pareto_front([worse, accurate]) == [accurate]


def test_a_single_result_is_the_front_even_with_a_top1_of_0(make_result: Make) -> None:
    useless = with_top1(make_result, 0.25, 1.0, 0.0)
    assert selection.pareto_front([useless]) == [useless]


def test_a_failed_cell_is_not_on_the_front(study: list[Result]) -> None:
    assert study[-1] not in selection.pareto_front(study)


def test_many_results_are_represented_by_the_front_the_fastest_and_the_baselines(make_result: Make) -> None:
    many = [with_top1(make_result, alpha / 100, alpha, 0.9) for alpha in range(10, 60)]
    best = with_top1(make_result, 2.0, 100.0, 0.995)
    baseline = make_result(ModelSpec(family="vgg16", classes=10), "baseline", scale=200.0)
    torch = make_result(ModelSpec(alpha=0.7, classes=10), backend="torch", scale=70.0)
    assert selection.representative([*many, best, baseline, torch]) == [many[0], torch, best, baseline]


def test_resolutions_are_compared_and_machines_threads_batches_and_images_are_not(make_result: Make) -> None:
    result = make_result()
    assert result.data is not None
    larger = make_result(ModelSpec(alpha=0.5, resolution=224, classes=10))
    assert larger.data is not None
    larger = replace(larger, data=replace(larger.data, fingerprint="at 224", preprocess="at 224"))
    others = [
        replace(result, settings=replace(result.settings, batch=8)),
        replace(result, settings=replace(result.settings, threads=2)),
        replace(result, data=replace(result.data, images=40)),
        replace(result, machine=replace(result.machine, memory_bytes=2**30)),
    ]
    groups = selection.comparable_groups([result, larger, *others])
    assert list(groups.values()) == [[result, larger], *([other] for other in others)]
    twin = f"Test CPU, 1 thread, 359 images of digits (machine {others[-1].machine.id})"
    assert list(groups) == [
        "Test CPU, 1 thread, 359 images of digits",
        "Test CPU, 1 thread, batch 8, 359 images of digits",
        "Test CPU, 2 threads, 359 images of digits",
        "Test CPU, 1 thread, 40 images of digits",
        twin,
    ]


def test_a_gpu_is_not_grouped_with_the_cpu(make_result: Make) -> None:
    cpu, gpu = make_result(), make_result(backend="tensorrt")
    facts = {"device": "NVIDIA H100 (compute capability 9.0)"}
    gpu = replace(gpu, cell=replace(gpu.cell, device="cuda:0"), measured=replace(gpu.measured, effective=facts))
    titles = list(selection.comparable_groups([cpu, gpu]))
    assert titles[1] == "NVIDIA H100 (compute capability 9.0), 1 thread, 359 images of digits"
