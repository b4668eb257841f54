from collections.abc import Callable
from dataclasses import replace

from mbbench.report.sections import grid
from mbbench.result import Result
from mbbench.spec import ModelSpec

Make = Callable[..., Result]


def at(make: Make, alpha: float, resolution: int, scale: float) -> Result:
    """A result whose test images were resized to the resolution, which has a fingerprint of its own."""
    result = make(ModelSpec(alpha=alpha, resolution=resolution, classes=10), scale=scale)
    assert result.data is not None
    return replace(result, data=replace(result.data, fingerprint=str(resolution)))


def test_widths_and_resolutions_make_one_map_and_batches_another(make_result: Make) -> None:
    results = [at(make_result, 0.25, 128, 1.0), at(make_result, 0.5, 128, 2.0), at(make_result, 0.5, 224, 6.0)]
    of_8 = [replace(result, settings=replace(result.settings, batch=8)) for result in results]
    section = grid.section(results)
    assert section is not None
    latency, top1, paper = section.tables
    assert (latency.title, latency.columns) == ("Median latency in ms, openvino in fp32", ("alpha", "224", "128"))
    assert latency.rows == (("0.5", "3.03", "1.01"), ("0.25", "—", "0.504"))
    assert top1.title == "Top-1, openvino in fp32"
    assert [row[0] for row in paper.rows] == ["0.5 MobileNet-224"]
    both = grid.section([*results, *of_8])
    assert both is not None
    assert [table.title for table in both.tables if table.title.startswith("Median")] == [
        "Median latency in ms, openvino in fp32, Test CPU, 1 thread",
        "Median latency in ms, openvino in fp32, Test CPU, 1 thread, batch 8",
    ]


def test_pruned_networks_are_not_the_papers(make_result: Make) -> None:
    pruned = make_result(ModelSpec(alpha=0.5, resolution=224, classes=10, widths=(8,) * 14))
    assert grid.section([pruned]) is None
