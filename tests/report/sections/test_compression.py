from collections.abc import Callable
from dataclasses import replace

from mbbench.report.names import namer
from mbbench.report.sections import compression
from mbbench.result import Result
from mbbench.spec import ModelSpec

Make = Callable[..., Result]
WHOLE = ModelSpec(alpha=0.5, resolution=128, classes=10)


def with_wrong(result: Result, wrong: range, images: int = 1000) -> Result:
    accuracy = result.measured.accuracy
    assert accuracy is not None
    accuracy = replace(accuracy, images=images, wrong=tuple(wrong), top1=1 - len(wrong) / images, drop=None)
    return replace(result, measured=replace(result.measured, accuracy=accuracy))


def test_a_pruned_network_stands_against_the_whole_one(make_result: Make) -> None:
    whole = with_wrong(make_result(WHOLE), range(100))
    pruned = with_wrong(make_result(replace(WHOLE, widths=(8,) * 14), scale=0.5), range(40, 120))
    section = compression.section([whole, pruned], namer([whole, pruned]))
    assert section is not None
    ((_, latency, size, memory, top1, p_value),) = section.tables[0].rows
    assert (latency, size, memory) == ("0.50", "0.50", "1.00")
    assert top1.startswith("+2.00 [")  # 40 more right, 20 fewer
    assert p_value == "0.013"


def test_accuracies_on_different_images_are_not_compared(make_result: Make) -> None:
    whole = with_wrong(make_result(WHOLE), range(100))
    pruned = with_wrong(make_result(replace(WHOLE, widths=(8,) * 14)), range(80))
    assert pruned.data is not None
    other = replace(pruned, data=replace(pruned.data, fingerprint="other"))
    assert compression.table([whole, other], namer([whole, other])).rows[0][4:] == ("—", "—")


def test_an_uncompressed_result_has_no_section(make_result: Make) -> None:
    assert compression.section([make_result()], namer([make_result()])) is None
