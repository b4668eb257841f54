"""Choosing, on results whose figures are set by hand."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from mbbench.analysis.choose import Choice, Limits, choose
from mbbench.report.formats import markdown
from mbbench.report.sections import choice
from mbbench.result import Failure, Result
from mbbench.spec import ModelSpec
from mbbench.stats import Interval

Make = Callable[..., Result]


def rated(result: Result, p99_ms: float, top1: float, half: float = 0.0) -> Result:
    latency, accuracy = result.measured.latency, result.measured.accuracy
    assert latency is not None and accuracy is not None
    measured = replace(
        result.measured,
        latency=replace(latency, p99_ms=p99_ms),
        accuracy=replace(accuracy, top1=top1, top1_ci95=Interval(top1 - half, top1 + half)),
    )
    return replace(result, measured=measured)


@pytest.fixture
def study(make_result: Make) -> list[Result]:
    """Three widths, a cell that failed, and a baseline without accuracy."""
    wide, half, narrow = (
        make_result(model=ModelSpec(alpha=alpha, resolution=128), scale=scale, id=str(alpha))
        for alpha, scale in ((1.0, 4.0), (0.5, 1.0), (0.25, 0.3))
    )
    failed = make_result(
        backend="torch", failure=Failure(cause="out of memory", remedy="buy some", exit_code=7), id="t"
    )
    baseline = make_result(model=ModelSpec(family="vgg16"), role="baseline", scale=90.0, id="v")
    return [rated(wide, 9.0, 0.70), rated(half, 4.0, 0.66), rated(narrow, 1.0, 0.50), failed, baseline]


def ids(found: Choice) -> tuple[list[str], list[str]]:
    return [one.candidate.result.id for one in found.kept], [one.candidate.result.id for one in found.lost]


def test_the_pick_keeps_every_limit_and_is_the_most_accurate_of_those(study: list[Result]) -> None:
    limits = Limits(max_p99_ms=10, min_top1=0.6, max_rss_bytes=130e6, max_size_bytes=10e6)
    found = choose(study, limits, published=False)
    assert found.pick is not None and found.pick.result.id == "0.5"
    assert ids(found) == (["0.5"], ["0.25", "1.0", "v", "t"])
    assert [one.lost_by for one in found.lost] == [
        ("top-1 10.0 points below",),
        ("size 112.0 % above",),
        ("p99 358.1 % above", "top-1: random weights have no accuracy", "size 4670.0 % above"),
        ("failed: out of memory",),
    ]


def test_without_limits_the_most_accurate_wins_and_the_rest_is_the_pareto_set_or_beaten(study: list[Result]) -> None:
    worse = rated(replace(study[1], id="worse"), 4.1, 0.66)
    found = choose([*study[:3], worse], Limits(), published=False)
    assert found.pick is not None and found.pick.result.id == "1.0"
    beaten = {one.candidate.result.id: one.beaten_by and one.beaten_by.result.id for one in found.kept}
    assert beaten == {"0.25": None, "0.5": None, "worse": "0.5", "1.0": None}


def test_of_accuracies_that_cannot_be_told_apart_the_fastest_wins(study: list[Result]) -> None:
    near = rated(study[1], 4.0, 0.66, half=0.05)
    found = choose([study[0], near, study[2]], Limits(), published=False)
    assert found.pick is not None and found.pick.result.id == "0.5"


def test_published_accuracies_are_those_of_the_precision(study: list[Result]) -> None:
    int8 = replace(study[1], id="int8", cell=replace(study[1].cell, precision="int8"))
    pruned = replace(study[1], id="pruned", cell=replace(study[1].cell, model=ModelSpec(alpha=0.5, widths=(8,) * 14)))
    found = choose([study[1], int8, pruned, study[4]], Limits(min_top1=0.55), published=True)
    assert ids(found)[0] == ["0.5", "v"]
    assert [one.candidate.top1 for one in found.kept] == pytest.approx([0.563, 0.715])
    assert [(one.candidate.top1, one.lost_by) for one in found.lost] == [
        (pytest.approx(0.549), ("top-1 0.1 points below",)),
        (None, ("top-1: is not published",)),
    ]


def test_a_percentile_without_enough_samples_keeps_no_limit(make_result: Make) -> None:
    result = make_result()
    latency = result.measured.latency
    assert latency is not None
    short = replace(
        result,
        measured=replace(result.measured, latency=replace(latency, p99_ms=None)),
        reasons={"latency.p99_ms": "needs 662 samples, has 100"},
    )
    found = choose([short], Limits(max_p99_ms=10), published=False)
    assert found.pick is None
    assert found.lost[0].lost_by == ("p99: needs 662 samples, has 100",)


def test_it_is_told_in_words_and_tables(study: list[Result]) -> None:
    found = choose(study, Limits(max_p99_ms=8), published=False)
    assert markdown.render(choice.document(found, published=False)) == (
        "**Take 0.5 MobileNet-128 on openvino: p99 4.00 ms, top-1 66.0 %, 125 MB of memory, 5.30 MB on disk"
        " (2 of 5 cells fit).**\n\n"
        "### Within the limits\n\n"
        "| Cell | p99 | Top-1 | Memory | Size |  |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: |\n"
        "| 0.25 MobileNet-128 on openvino | 1.00 ms | 50.0 % | 125 MB | 1.59 MB | Pareto |\n"
        "| 0.5 MobileNet-128 on openvino | 4.00 ms | 66.0 % | 125 MB | 5.30 MB | pick |\n\n"
        "### Outside\n\n"
        "| Cell | Lost by |\n"
        "| --- | --- |\n"
        "| 1.0 MobileNet-128 on openvino | p99 12.5 % above |\n"
        "| VGG16-224 on openvino | p99 472.6 % above |\n"
        "| 0.5 MobileNet-128 on torch | failed: out of memory |\n\n"
        "- The pick is the fastest of those whose top-1 cannot be told from the best within the limits; nothing"
        " beats the Pareto set in p99, top-1, memory and size at once.\n"
        "- Top-1 is measured, on 359 images of digits.\n"
    )
    assert [(row["id"], row["pick"], row["pareto"]) for row in choice.record(found)] == [
        ("0.25", False, True), ("0.5", True, True), ("1.0", False, False), ("v", False, False), ("t", False, False),
    ]  # fmt: skip


def test_nothing_that_keeps_within_the_limits_is_said_so(study: list[Result]) -> None:
    found = choose(study, Limits(max_size_bytes=1), published=True)
    document = choice.document(found, published=True)
    assert document.headline == "None of 5 cells keeps within the limits."
    assert "published" in document.notes[-1]
