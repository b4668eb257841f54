from collections.abc import Callable
from dataclasses import replace

from mbbench.report import selection
from mbbench.result import Result
from mbbench.spec import ModelSpec

Make = Callable[..., Result]


def rated(make: Make, alpha: float, scale: float, top1: float) -> Result:
    result = make(ModelSpec(alpha=alpha, classes=10), scale=scale)
    assert result.measured.accuracy is not None
    accuracy = replace(result.measured.accuracy, top1=top1)
    return replace(result, measured=replace(result.measured, accuracy=accuracy))


def test_the_front_has_what_nothing_beats_on_both_counts(make_result: Make) -> None:
    fast, better = rated(make_result, 0.25, 1.0, 0.90), rated(make_result, 0.5, 2.0, 0.95)
    beaten, worst, best = (
        rated(make_result, 0.3, 1.5, 0.89),
        rated(make_result, 0.6, 3.0, 0.95),
        rated(make_result, 1.0, 4.0, 0.97),
    )
    assert selection.front([best, worst, beaten, better, fast]) == [fast, better, best]


def test_of_two_as_fast_the_better_is_on_the_front(make_result: Make) -> None:
    worse, better = rated(make_result, 0.25, 1.0, 0.90), rated(make_result, 0.5, 1.0, 0.95)
    assert selection.front([worse, better]) == [better]


def test_an_answer_that_is_never_right_is_on_no_front_but_its_own(make_result: Make) -> None:
    assert [one.cell.label for one in selection.front([rated(make_result, 0.25, 1.0, 0.0)])] == [
        "0.25 MobileNet-224 on openvino"
    ]


def test_a_failed_cell_is_on_no_front(study: list[Result]) -> None:
    assert study[-1] not in selection.front(study)


def test_the_newest_counts_but_other_threads_are_another_cell(make_result: Make) -> None:
    old, new = make_result(), make_result(scale=2.0)
    two = replace(new, settings=replace(new.settings, threads=2))
    assert selection.newest([old, two, new]) == [new, two]


def test_of_many_cells_those_shown_are_the_front_the_fastest_and_the_baselines(make_result: Make) -> None:
    many = [rated(make_result, alpha / 100, alpha, 0.9) for alpha in range(10, 60)]
    best = rated(make_result, 2.0, 100.0, 0.995)
    baseline = make_result(ModelSpec(family="vgg16", classes=10), "baseline", scale=200.0)
    torch = make_result(ModelSpec(alpha=0.7, classes=10), backend="torch", scale=70.0)
    assert selection.representative([*many, best, baseline, torch]) == [many[0], torch, best, baseline]
