from collections.abc import Callable
from dataclasses import replace

import pytest

from mbbench.models.cost import cost_of
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


def test_networks_between_measured_ones_are_predicted_and_marked(make_result: Make) -> None:
    """The chip takes a millisecond for 120 million Mult-Adds of a layer, and 1 µs for every layer."""

    def latency_ms(alpha: float, resolution: int) -> float:
        table = cost_of(ModelSpec(alpha=alpha, resolution=resolution, classes=10)).layers
        return sum(layer.mult_adds / 1.2e8 + 1e-3 for layer in table)

    places = [(0.25, 96), (0.25, 224), (1.0, 96), (1.0, 224), (0.5, 160)]
    usual_ms = make_result().median_ms()
    assert usual_ms is not None
    results = [at(make_result, alpha, side, latency_ms(alpha, side) / usual_ms) for alpha, side in places]
    section = grid.section(results)
    assert section is not None
    latency = section.tables[0]
    assert latency.columns == ("alpha", "224", "160", "96")
    assert latency.hollow == ((False, True, False), (True, False, True), (False, True, False))
    assert [[cell.startswith("≈") for cell in row[1:]] for row in latency.rows] == [list(row) for row in latency.hollow]
    assert latency.shades is not None and all(shade is not None for row in latency.shades for shade in row)
    for row, alpha in zip(latency.rows, (1.0, 0.5, 0.25), strict=True):
        for text, side in zip(row[1:], (224, 160, 96), strict=True):
            assert float(text.removeprefix("≈")) == pytest.approx(latency_ms(alpha, side), rel=0.08)
    assert latency.notes == ("≈: predicted from the 5 measured networks, as by `mbbench fit`.",)
    assert section.tables[1].hollow is None  # top-1 is not predicted
    (whole,) = grid.predicted_maps(results, [ModelSpec(alpha=alpha, resolution=128) for alpha in (0.25, 0.75)])
    assert (whole.columns, len(whole.rows)) == (("alpha", "224", "160", "128", "96"), 4)
    assert grid.section(results[:4]) is not None and grid.predicted_maps(results[:4], []) == []
