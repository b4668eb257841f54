"""The full report as text, compared with golden files."""

from collections.abc import Callable
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from mbbench.report.document import Document
from mbbench.report.formats import junit, markdown, terminal
from mbbench.report.page import build_page
from mbbench.report.sections import versus
from mbbench.report.sections.cell import cell_table
from mbbench.report.sections.tables import size_and_accuracy
from mbbench.report.summary import summary_document
from mbbench.result import DeviceTimes, Failure, Measured, Result, WeightsInfo
from mbbench.spec import ModelSpec

Make = Callable[..., Result]
Golden = Callable[[str, str], None]


def test_a_study_as_markdown(study: list[Result], golden: Golden) -> None:
    golden(markdown.render_page(build_page(study)), "study.md")


def test_a_study_in_a_terminal(study: list[Result], golden: Golden) -> None:
    golden(terminal.render_page(build_page(study), width=80, color=False), "study.txt")


def test_a_study_as_junit(study: list[Result], golden: Golden) -> None:
    golden(junit.render_results(study), "study.xml")


@pytest.mark.parametrize("width", [80, 120])
def test_no_line_is_wider_than_the_terminal(study: list[Result], width: int) -> None:
    assert max(map(len, terminal.render_page(build_page(study), width=width, color=False).splitlines())) <= width


def test_no_figure_is_cut_off_at_80_columns(study: list[Result]) -> None:
    for section in build_page(study).sections:
        for table in section.tables:
            if table.numeric:
                text = terminal.render(Document("", (table,), ()), width=80, color=False)
                figures = [figure for row in table.rows for figure in row[1:]]
                assert all(text.count(figure) >= figures.count(figure) for figure in figures), table.title


@pytest.mark.parametrize(
    ("families", "names"),
    [
        ((), "VGG16 and GoogLeNet"),
        (("alexnet",), "AlexNet"),
        (("vgg16", "squeezenet1_1", "mobilenet_v2"), "VGG16, SqueezeNet 1.1 and 1.0 MobileNetV2"),
    ],
)
def test_the_section_on_baselines_names_them(make_result: Make, families: tuple[str, ...], names: str) -> None:
    baselines = [make_result(ModelSpec(family, classes=10), "baseline", scale=9.0) for family in families]
    subject = make_result(ModelSpec())
    (section,) = (section for section in build_page([subject, *baselines]).sections if section.id == "baselines")
    assert section.title == f"Against {names}"
    titles = [table.title for table in versus.tables([make_result(ModelSpec(classes=10)), *baselines])]
    assert titles == ([f"1.0 MobileNet-224 against {names} on openvino"] if families else [])


def test_how_a_checkpoint_was_read_is_told_once(make_result: Make) -> None:
    info = WeightsInfo(origin="file", key="aa", trained_on=None, notes=("read from model_ema instead of model", "x"))
    results = [
        replace(result, weights=info, cell=replace(result.cell, weights="timm:folder/mine.pth"))
        for result in (make_result(), make_result(backend="onnxruntime"))
    ]
    line = "Weights mine.pth: read from model_ema instead of model, x."
    (cells,) = (section for section in build_page(results).sections if section.id == "cells")
    assert cells.text.count(line) == 1
    (accuracy,) = (table for table in summary_document(results).tables if "top-1" in " ".join(table.columns).lower())
    assert accuracy.notes.count(line) == 1
    assert ("Weights", "read from model_ema instead of model, x") in cell_table(results[0]).rows
    assert "Weights" not in [row[0] for row in cell_table(make_result()).rows]


def test_a_single_cell_makes_a_report(make_result: Make) -> None:
    report = build_page([make_result()])
    assert report.title == "0.5 MobileNet-128 on openvino"
    assert [section.id for section in report.sections] == [
        "trade-off", "cells", "latency", "memory", "cold-start", "machine",
    ]  # fmt: skip


def test_a_failed_cell_makes_a_report(study: list[Result]) -> None:
    report = build_page(study[-1:])
    assert report.headline == (
        "No measurement was completed.",
        "1 of 1 cells failed; the reasons are under Machine, settings and warnings.",
    )


def test_only_the_last_of_equally_precise_results_of_a_cell_is_shown(make_result: Make) -> None:
    old, new = make_result(), make_result(scale=2.0)
    (cells,) = [section for section in build_page([old, new]).sections if section.id == "cells"]
    assert cells.tables[0].rows == (("0.5 MobileNet-128 on openvino", "1.01 [1.01, 1.01]", "1.02", "1.02", "800"),)
    assert cells.text[-1] == (
        "1 repeated result left out: of each cell the most precise one with the newest versions is shown."
    )


def test_cells_name_their_machine_if_there_are_several(make_result: Make) -> None:
    first = make_result()
    second = replace(first, machine=replace(first.machine, cpu="Other CPU"))
    report = build_page([first, second])
    (cells,) = [section for section in report.sections if section.id == "cells"]
    assert [row[0] for row in cells.tables[0].rows] == [
        "0.5 MobileNet-128 on openvino, Test CPU",
        "0.5 MobileNet-128 on openvino, Other CPU",
    ]
    (trade_off,) = [section for section in report.sections if section.id == "trade-off"]
    assert [figure.title for figure in trade_off.figures] == [
        "Accuracy against latency: Test CPU, 1 thread, 359 images of digits",
        "Accuracy against latency: Other CPU, 1 thread, 359 images of digits",
    ]


def test_random_weights_have_no_trade_off(make_result: Make) -> None:
    report = build_page([make_result(ModelSpec(family="vgg16", resolution=128, classes=10), "baseline")])
    assert "trade-off" not in [section.id for section in report.sections]


def test_a_call_on_a_device_is_shown_if_the_runtime_reports_it(make_result: Make) -> None:
    cpu = make_result()
    measured = replace(
        cpu.measured,
        effective={**cpu.measured.effective, "engine": "built", "kernels": "compiled"},
        device_times=DeviceTimes(n=20, to_device_ms=0.0125, compute_ms=0.25, to_host_ms=0.005),
        device_memory_bytes=412_000_000,
    )
    gpu = replace(make_result(backend="tensorrt"), measured=measured)
    (section,) = [section for section in build_page([cpu, gpu]).sections if section.id == "device"]
    assert section.tables[0].rows == (
        ("0.5 MobileNet-128 on tensorrt", "0.0125", "0.250", "0.00500", "0.504", "412 MB"),
    )
    rows = {row[0]: row[1] for row in cell_table(gpu).rows}
    assert rows["On the device"] == (
        "copy in 0.0125 ms, compute 0.250 ms, copy out 0.00500 ms (medians of 20 calls, timed by the device)"
    )
    assert rows["Device memory"] == "412 MB held by the process, as reported by the driver"
    assert rows["Cold start"] == (
        "import 50.0 ms, load 20.0 ms, compile 80.0 ms (engine built, kernels compiled), first inference 2.50 ms"
    )
    assert not {"On the device", "Device memory"} & {row[0] for row in cell_table(cpu).rows}
    memory = size_and_accuracy([cpu, gpu], lambda result: result.cell.backend)
    assert memory.columns[:3] == ("Cell", "Peak memory", "Device memory")
    assert [row[:3] for row in memory.rows] == [("openvino", "125 MB", "—"), ("tensorrt", "125 MB", "412 MB")]
    assert "Device memory" not in size_and_accuracy([cpu], lambda result: result.cell.backend).columns


def test_the_devices_memory_is_compared_with_the_baselines(make_result: Make) -> None:
    vgg16 = make_result(ModelSpec(family="vgg16", resolution=128, classes=10), "baseline", scale=100.0)
    subject, baseline = (
        replace(
            result,
            cell=replace(result.cell, device="cuda:0"),
            measured=replace(result.measured, device_memory_bytes=size),
        )
        for result, size in ((make_result(), 400_000_000), (vgg16, 1_000_000_000))
    )
    (table,) = versus.tables([subject, baseline])
    assert table.title == "0.5 MobileNet-128 against VGG16 on openvino cuda:0"
    assert ("Device memory", "400 MB", "1000 MB", "2.50x") in table.rows


def test_a_cell_that_its_runtime_does_not_support_is_a_note_and_no_row(make_result: Make) -> None:
    failure = Failure(cause="no driver", remedy="install one", exit_code=6)
    unsupported = replace(make_result(backend="tensorrt"), failure=failure, measured=Measured(), reasons={})
    report = build_page([make_result(), unsupported])
    (cells,) = [section for section in report.sections if section.id == "cells"]
    assert [row[0] for row in cells.tables[0].rows] == ["0.5 MobileNet-128 on openvino"]
    assert report.headline[-1] == (
        "1 of 2 cells is not supported here; the reasons are under Machine, settings and warnings."
    )
    (notes,) = [section for section in report.sections if section.id == "machine"]
    assert "0.5 MobileNet-128 on tensorrt is not supported: no driver; install one." in notes.text


def test_junit_skips_a_cell_that_its_runtime_does_not_support(make_result: Make) -> None:
    failed, unsupported = (
        replace(
            make_result(backend=backend), measured=Measured(), reasons={},
            failure=Failure(cause="it cannot", remedy="leave it out", exit_code=exit_code),
        )
        for backend, exit_code in (("torch", 7), ("tensorrt", 6))
    )  # fmt: skip
    suite = ElementTree.fromstring(junit.render_results([make_result(), failed, unsupported]))[0]
    assert [suite.get(name) for name in ("tests", "failures", "errors", "skipped")] == ["3", "0", "1", "1"]
    assert [[child.tag for child in case][1:] for case in suite] == [[], ["error"], ["skipped"]]
