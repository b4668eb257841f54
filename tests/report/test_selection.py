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
