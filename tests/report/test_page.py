"""The whole report as text, against golden files."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from mbbench.report.formats import junit, markdown, terminal
from mbbench.report.page import page
from mbbench.report.sections.cell import card
from mbbench.result import DeviceTimes, Result
from mbbench.spec import ModelSpec

Make = Callable[..., Result]
Golden = Callable[[str, str], None]


def test_a_study_as_markdown(study: list[Result], golden: Golden) -> None:
    golden(markdown.render_page(page(study)), "study.md")


def test_a_study_in_a_terminal(study: list[Result], golden: Golden) -> None:
    golden(terminal.render_page(page(study), width=80, color=False), "study.txt")


def test_a_study_as_junit(study: list[Result], golden: Golden) -> None:
    golden(junit.render_results(study), "study.xml")


@pytest.mark.parametrize("width", [80, 120])
def test_no_line_is_wider_than_the_terminal(study: list[Result], width: int) -> None:
    assert max(map(len, terminal.render_page(page(study), width=width, color=False).splitlines())) <= width


def test_one_cell_makes_a_report_too(make_result: Make) -> None:
    found = page([make_result()])
    assert found.title == "0.5 MobileNet-128 on openvino"
    assert [section.id for section in found.sections] == [
        "trade-off", "baselines", "grid", "cells", "latency", "memory", "cold-start", "machine",
    ]  # fmt: skip


def test_nothing_measured_makes_a_report_too(study: list[Result]) -> None:
    found = page(study[-1:])
    assert found.headline == (
        "Nothing was measured completely.",
        "Of the paper's 4 claims that can be judged here, 4 hold.",
        "1 of 1 cells failed; the notes say why.",
    )


def test_the_newest_of_a_cell_counts_and_is_told(make_result: Make) -> None:
    old, new = make_result(), make_result(scale=2.0)
    (cells,) = [section for section in page([old, new]).sections if section.id == "cells"]
    assert cells.tables[0].rows == (("0.5 MobileNet-128 on openvino", "1.01 [1.01, 1.01]", "1.02", "1.02", "800"),)
    assert cells.text[-1] == "1 older result of the same cells is left out."


def test_machines_are_named_where_there_are_several(make_result: Make) -> None:
    here = make_result()
    there = replace(here, machine=replace(here.machine, cpu="Other CPU"))
    found = page([here, there])
    (cells,) = [section for section in found.sections if section.id == "cells"]
    assert [row[0] for row in cells.tables[0].rows] == [
        "0.5 MobileNet-128 on openvino, Test CPU",
        "0.5 MobileNet-128 on openvino, Other CPU",
    ]
    (trade_off,) = [section for section in found.sections if section.id == "trade-off"]
    assert [figure.title for figure in trade_off.figures] == [
        "Accuracy against latency: Test CPU, 1 thread, 359 images of digits",
        "Accuracy against latency: Other CPU, 1 thread, 359 images of digits",
    ]


def test_random_weights_have_no_trade_off(make_result: Make) -> None:
    found = page([make_result(ModelSpec(family="vgg16", resolution=128, classes=10), "baseline")])
    (trade_off,) = [section for section in found.sections if section.id == "trade-off"]
    assert trade_off.text == ("No accuracy was measured: random weights or images without labels have none.",)
    assert not trade_off.figures


def test_a_call_on_a_device_is_shown_where_one_tells_it(make_result: Make) -> None:
    host = make_result()
    measured = replace(
        host.measured,
        effective={**host.measured.effective, "engine": "built", "kernels": "compiled"},
        device_times=DeviceTimes(n=20, to_device_ms=0.0125, compute_ms=0.25, to_host_ms=0.005),
        device_memory_bytes=412_000_000,
    )
    gpu = replace(make_result(backend="tensorrt"), measured=measured)
    (section,) = [section for section in page([host, gpu]).sections if section.id == "device"]
    assert section.tables[0].rows == (
        ("0.5 MobileNet-128 on tensorrt", "0.0125", "0.250", "0.00500", "0.504", "412 MB"),
    )
    rows = {row[0]: row[1] for row in card(gpu).rows}
    assert rows["On the device"] == (
        "in 0.0125 ms, compute 0.250 ms, out 0.00500 ms (medians of 20 calls, by its clock)"
    )
    assert rows["Device memory"] == "412 MB held by the process, as the driver says"
    assert rows["Cold start"] == (
        "import 50.0 ms, load 20.0 ms, compile 80.0 ms (engine built, kernels compiled), first inference 2.50 ms"
    )
    assert not {"On the device", "Device memory"} & {row[0] for row in card(host).rows}
