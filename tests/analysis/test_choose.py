"""Choosing among results with scripted figures."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from mbbench.analysis.choose import Choice, Limits, choose
from mbbench.report.formats import markdown
from mbbench.report.sections import choice as section
from mbbench.result import Failure, Result
from mbbench.spec import ModelSpec
from mbbench.stats import Interval

Make = Callable[..., Result]


def with_figures(result: Result, p99_ms: float, top1: float, half_width: float = 0.0) -> Result:
    latency, accuracy = result.measured.latency, result.measured.accuracy
    assert latency is not None and accuracy is not None
    measured = replace(
        result.measured,
        latency=replace(latency, p99_ms=p99_ms),
        accuracy=replace(accuracy, top1=top1, top1_ci95=Interval(top1 - half_width, top1 + half_width)),
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
        backend="torch", failure=Failure(cause="out of memory", remedy="free memory", exit_code=7), id="failed"
    )
    vgg16 = make_result(model=ModelSpec(family="vgg16"), role="baseline", scale=90.0, id="vgg16")
    return [
        with_figures(wide, 9.0, 0.70),
        with_figures(half, 4.0, 0.66),
        with_figures(narrow, 1.0, 0.50),
        failed,
        vgg16,
    ]


def ids(choice: Choice) -> tuple[list[str], list[str]]:
    within, outside = (
        [assessment.candidate.result.id for assessment in assessments]
        for assessments in (choice.within_limits, choice.outside_limits)
    )
    return within, outside


def test_the_pick_is_within_every_limit_and_violations_are_listed(study: list[Result]) -> None:
    limits = Limits(max_p99_ms=10, min_top1=0.6, max_rss_bytes=130e6, max_size_bytes=10e6)
    choice = choose(study, limits, published=False)
    assert choice.pick is not None and choice.pick.result.id == "0.5"
    assert ids(choice) == (["0.5"], ["0.25", "1.0", "vgg16", "failed"])
    assert [assessment.violations for assessment in choice.outside_limits] == [
        ("top-1 10.0 points below limit",),
        ("size 112.0 % above limit",),
        ("p99 358.1 % above limit", "top-1: random weights have no accuracy", "size 4670.0 % above limit"),
        ("failed: out of memory",),
    ]


def test_without_limits_the_most_accurate_cell_is_picked_and_dominated_cells_are_marked(study: list[Result]) -> None:
    worse = with_figures(replace(study[1], id="worse"), 4.1, 0.66)
    choice = choose([*study[:3], worse], Limits(), published=False)
    assert choice.pick is not None and choice.pick.result.id == "1.0"
    dominated_by = {
        assessment.candidate.result.id: assessment.dominated_by and assessment.dominated_by.result.id
        for assessment in choice.within_limits
    }
    assert dominated_by == {"0.25": None, "0.5": None, "worse": "0.5", "1.0": None}


def test_the_fastest_of_indistinguishable_accuracies_is_picked(study: list[Result]) -> None:
    near = with_figures(study[1], 4.0, 0.66, half_width=0.05)
    choice = choose([study[0], near, study[2]], Limits(), published=False)
    assert choice.pick is not None and choice.pick.result.id == "0.5"


def test_the_published_accuracy_depends_on_the_precision(study: list[Result]) -> None:
    int8 = replace(study[1], id="int8", cell=replace(study[1].cell, precision="int8"))
    pruned = replace(study[1], id="pruned", cell=replace(study[1].cell, model=ModelSpec(alpha=0.5, widths=(8,) * 14)))
    choice = choose([study[1], int8, pruned, study[4]], Limits(min_top1=0.55), published=True)
    assert ids(choice)[0] == ["0.5", "vgg16"]
    assert [assessment.candidate.top1 for assessment in choice.within_limits] == pytest.approx([0.563, 0.715])
    assert [(assessment.candidate.top1, assessment.violations) for assessment in choice.outside_limits] == [
        (pytest.approx(0.549), ("top-1 0.1 points below limit",)),
        (None, ("top-1: not published",)),
    ]


def test_a_p99_without_enough_samples_violates_the_limit(make_result: Make) -> None:
    result = make_result()
    latency = result.measured.latency
    assert latency is not None
    short = replace(
        result,
        measured=replace(result.measured, latency=replace(latency, p99_ms=None)),
        reasons={"latency.p99_ms": "needs 662 samples, has 100"},
    )
    choice = choose([short], Limits(max_p99_ms=10), published=False)
    assert choice.pick is None
    assert choice.outside_limits[0].violations == ("p99: needs 662 samples, has 100",)


def test_a_shortened_table_names_the_option_that_writes_all_rows(make_result: Make) -> None:
    results = [make_result(ModelSpec(alpha=1 + index / 100)) for index in range(41)]
    choice = choose(results, Limits(), published=False)
    within = section.shortened(section.choice_document(choice, published=False)).tables[0]
    assert within.notes[-1] == "1 more row: --format json or csv writes all rows."


def test_a_choice_is_written_as_a_headline_tables_and_rows(study: list[Result]) -> None:
    choice = choose(study, Limits(max_p99_ms=8), published=False)
    assert markdown.render(section.choice_document(choice, published=False)) == (
        "**Use 0.5 MobileNet-128 on openvino: p99 4.00 ms, top-1 66.0 %, 125 MB of memory, 5.30 MB on disk"
        " (2 of 5 cells are within the limits).**\n\n"
        "### Within the limits\n\n"
        "| Cell | p99 | Top-1 | Memory | Size | Status |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: |\n"
        "| 0.25 MobileNet-128 on openvino | 1.00 ms | 50.0 % | 125 MB | 1.59 MB | Pareto |\n"
        "| 0.5 MobileNet-128 on openvino | 4.00 ms | 66.0 % | 125 MB | 5.30 MB | pick |\n\n"
        "### Outside the limits\n\n"
        "| Cell | Reason |\n"
        "| --- | --- |\n"
        "| 1.0 MobileNet-128 on openvino | p99 12.5 % above limit |\n"
        "| VGG16-224 on openvino | p99 472.6 % above limit |\n"
        "| 0.5 MobileNet-128 on torch | failed: out of memory |\n\n"
        "- The pick is the fastest cell whose top-1 is not distinguishable from the best within the limits. No cell is"
        " better than a Pareto cell in one of p99, top-1, memory and size without being worse in another.\n"
        "- Top-1 was measured on 359 images of digits.\n"
    )
    assert [(row["id"], row["pick"], row["pareto"]) for row in section.record(choice)] == [
        ("0.25", False, True), ("0.5", True, True), ("1.0", False, False), ("vgg16", False, False),
        ("failed", False, False),
    ]  # fmt: skip


def test_the_headline_reports_that_no_cell_is_within_the_limits(study: list[Result]) -> None:
    choice = choose(study, Limits(max_size_bytes=1), published=True)
    document = section.choice_document(choice, published=True)
    assert document.headline == "None of 5 cells is within the limits."
    assert "published" in document.notes[-1]


def test_added_memory_has_a_limit_of_its_own(study: list[Result]) -> None:
    """The fixture's process starts with 30 MB and reaches 125 MB."""
    assert choose(study[:1], Limits(max_added_rss_bytes=95e6), published=False).pick is not None
    (outside,) = choose(study[:1], Limits(max_added_rss_bytes=50e6), published=False).outside_limits
    assert outside.violations == ("added memory 90.0 % above limit",)


def test_calls_of_different_batch_sizes_are_not_compared(study: list[Result]) -> None:
    of_8 = replace(study[1], id="batch 8", settings=replace(study[1].settings, batch=8))
    choice = choose([of_8, study[0]], Limits(), published=False)
    assert choice.pick is not None and choice.pick.result.id == "1.0"
    assert choice.outside_limits[0].violations == ("batch 8: only calls of batch 1 are compared",)
    assert choose([of_8], Limits(), published=False).pick is not None


def test_every_machine_has_a_verdict(study: list[Result]) -> None:
    on_b = [replace(result, machine=replace(result.machine, cpu="B")) for result in study[:2]]
    slow_on_b = [with_figures(result, result_p99, 0.7) for result, result_p99 in zip(on_b, (13.6, 20.0), strict=True)]
    choice = choose([*study[:3], *slow_on_b], Limits(max_p99_ms=10.0), published=False)
    on_a, on_b_choice = choice.by_machine()
    assert on_a.pick is not None and on_a.pick.result.id == "1.0"
    assert on_b_choice.pick is None
    assert on_b_choice.nearest is not None and on_b_choice.nearest.violations == ("p99 36.0 % above limit",)
    (table,) = [t for t in section.choice_document(choice, published=False).tables if t.title == "By machine"]
    assert table.rows == (
        ("Test CPU", "1.0 MobileNet-128 on openvino, Test CPU"),
        ("B", "none is within the limits; nearest: 1.0 MobileNet-128 on openvino, B (p99 36.0 % above limit)"),
    )


def test_published_top1_belongs_to_the_checkpoint(make_result: Make) -> None:
    model = ModelSpec(classes=1000)
    timm, released = (
        make_result(model=model, id=weights) for weights in ("timm:mobilenetv1_100.safetensors", "keras:a.h5")
    )
    timm, released = (replace(r, cell=replace(r.cell, weights=r.id)) for r in (timm, released))
    choice = choose([timm, released], Limits(), published=True)
    top1 = {a.candidate.result.id: a.candidate.top1 for a in choice.within_limits}
    assert top1 == {timm.id: pytest.approx(0.75382), released.id: pytest.approx(0.709)}
