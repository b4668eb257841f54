from collections.abc import Callable
from dataclasses import replace

from mbbench.report.names import namer
from mbbench.report.sections import roofline
from mbbench.result import LayerTimes, Result

Make = Callable[..., Result]


def timed(result: Result) -> Result:
    return replace(result, layer_times=LayerTimes(runs=20, layers=(), moves_ms=0.01, other_ms=0.05))


def test_a_section_that_is_cut_says_so(make_result: Make) -> None:
    results = [timed(make_result(backend=f"runtime{index}")) for index in range(7)]
    section = roofline.section(results, namer(results))
    assert section is not None
    assert len(section.tables) == 6
    assert section.text[-1] == (
        "6 of 7 runtimes and precisions are shown; `mbbench report -o report.json` has all layer times."
    )
    section = roofline.section(results[:6], namer(results))
    assert section is not None and len(section.text) == 1


def test_threads_and_batches_are_shown_apart(make_result: Make) -> None:
    results = [timed(make_result()), timed(make_result())]
    results[1] = replace(results[1], settings=replace(results[1].settings, threads=2))
    section = roofline.section(results, namer(results))
    assert section is not None and len(section.tables) == 2
