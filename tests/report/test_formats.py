"""The summary of a run in every format, compared with golden files."""

from collections.abc import Callable
from csv import DictReader
from dataclasses import replace
from io import StringIO

import msgspec
import pytest

from mbbench.report.formats import csv, json, markdown, terminal
from mbbench.report.summary import summary_document
from mbbench.result import (
    Candidate,
    ExecutedInfo,
    Failure,
    Measured,
    PrecisionShare,
    QuantizationInfo,
    Result,
    ScenarioResult,
    Throughput,
    Top1Drop,
)
from mbbench.spec import ModelSpec
from mbbench.stats import Interval

Make = Callable[..., Result]
Golden = Callable[[str, str], None]
VGG16 = ModelSpec(family="vgg16", resolution=128, classes=10)
GOOGLENET = ModelSpec(family="googlenet", resolution=128, classes=10)


@pytest.fixture
def single(make_result: Make) -> list[Result]:
    """A model with its baselines."""
    return [
        make_result(),
        make_result(VGG16, "baseline", scale=100.0),
        make_result(GOOGLENET, "baseline", scale=10.0),
    ]


@pytest.fixture
def several(make_result: Make) -> list[Result]:
    """Three backends; one failed before it measured anything."""
    killed = Failure(cause="the measuring process was killed", remedy="free memory", exit_code=7)
    return [
        make_result(),
        make_result(backend="torch", scale=4.0),
        replace(make_result(backend="onnxruntime"), failure=killed, measured=Measured()),
    ]


@pytest.fixture
def int8(make_result: Make) -> Result:
    """A result with half the latency and size, and 5 fewer correct answers of 359."""
    result = make_result(scale=0.5)
    accuracy, artifact = result.measured.accuracy, result.artifact
    assert accuracy is not None and artifact is not None
    lost = Top1Drop(
        share=5 / 359, ci95=Interval(-0.0024, 0.0301), only_reference_right=6, only_this_right=1, p_value=0.125,
        worst_class=8, worst_class_share=0.06,
    )  # fmt: skip
    best = Candidate(ranges="mse", equalized=True, corrected=True, share=0.99, logit_rmse=0.16)
    shares = (
        PrecisionShare(precision="int8", mult_adds_share=0.975, layers=26),
        PrecisionShare(precision="fp32", mult_adds_share=0.025, layers=2),
    )
    return replace(
        result,
        cell=replace(result.cell, precision="int8"),
        artifact=replace(artifact, dialect="u8s8"),
        quantization=QuantizationInfo(
            calibration="digits", calibration_fingerprint="ff", images=256, held_out=256, judged_by="top1",
            chosen=best, candidates=(best,), kept_fp32=("stem.conv", "stem.act", "blocks.0.0.conv", "blocks.0.0.act"),
        ),
        executed=ExecutedInfo(shares=shares, fp32_layers=("stem.conv", "blocks.0.0.conv"), moves=3),
        measured=replace(result.measured, accuracy=replace(accuracy, agreement=0.975, drop=lost)),
    )  # fmt: skip


def test_int8_in_a_terminal(int8: Result, golden: Golden) -> None:
    golden(terminal.render(summary_document([int8]), width=80, color=False), "int8.txt")


def test_fp32_and_int8_in_a_terminal(make_result: Make, int8: Result, golden: Golden) -> None:
    golden(terminal.render(summary_document([make_result(), int8]), width=80, color=False), "precisions.txt")


def test_two_checkpoints_of_a_network_are_told_apart(make_result: Make, int8: Result) -> None:
    results = [make_result(), int8]
    pruned = [replace(result, cell=replace(result.cell, weights="half.safetensors")) for result in results]
    text = terminal.render(summary_document([*results, *pruned]), width=None, color=False)
    for weights in ("trained", "weights half.safetensors"):
        assert f"0.5 MobileNet-128 in int8 on openvino, {weights} against fp32: top-1 -1.39 points" in text
    assert "\nSpeed\n" in text


def test_a_single_model_in_a_terminal(single: list[Result], golden: Golden) -> None:
    golden(terminal.render(summary_document(single), width=80, color=False), "one.txt")


def test_several_backends_in_a_terminal(several: list[Result], golden: Golden) -> None:
    golden(terminal.render(summary_document(several), width=80, color=False), "several.txt")


def test_no_line_is_wider_than_the_terminal(single: list[Result], several: list[Result]) -> None:
    for results in (single, several):
        for width in (80, 120):
            lines = terminal.render(summary_document(results), width=width, color=False).splitlines()
            assert max(map(len, lines)) <= width


def test_colors_are_written_only_on_request(single: list[Result]) -> None:
    assert "\x1b[" in terminal.render(summary_document(single), width=80, color=True)
    assert "\x1b" not in terminal.render(summary_document(single), width=80, color=False)


def test_a_single_model_as_markdown(single: list[Result], golden: Golden) -> None:
    golden(markdown.render(summary_document(single)), "one.md")


def test_markdown_escapes_markup(make_result: Make) -> None:
    hostile = make_result(backend="<script>|*x*")
    assert "<script>" not in markdown.render(summary_document([hostile]))
    assert "\\<script\\>\\|\\*x\\*" in markdown.render(summary_document([hostile]))


def test_csv_has_a_column_for_each_figure_of_a_scenario(single: list[Result]) -> None:
    served = ScenarioResult(
        scenario="offline", batch=4, queries=50, seconds=0.1, images_per_s=2000.0, effective={"streams": "2"}
    )
    result = replace(single[0], measured=replace(single[0].measured, served=(served,)))
    (row,) = DictReader(StringIO(csv.render([result])))
    columns = {name: value for name, value in row.items() if name.startswith("measured.served")}
    assert columns == {
        "measured.served.offline.batch": "4",
        "measured.served.offline.queries": "50",
        "measured.served.offline.seconds": "0.1",
        "measured.served.offline.images_per_s": "2000.0",
        "measured.served.offline.effective.streams": "2",
    }


def test_csv_has_a_column_for_each_batch_size_and_for_the_memory_added(single: list[Result]) -> None:
    rates = tuple(
        Throughput(batch=batch, images=100, seconds=0.1, images_per_s=rate)
        for batch, rate in ((1, 900.0), (16, 1000.0))
    )
    result = replace(single[0], measured=replace(single[0].measured, throughput=rates[1], throughputs=rates))
    (row,) = DictReader(StringIO(csv.render([result])))
    assert {name: value for name, value in row.items() if name.startswith("measured.throughputs")} == {
        "measured.throughputs.batch_1.images_per_s": "900.0",
        "measured.throughputs.batch_16.images_per_s": "1000.0",
    }
    assert row["measured.memory.steady.added_rss_bytes"] == "95000000"  # 125 MB less 30 MB at the start


def test_several_backends_as_csv(several: list[Result], golden: Golden) -> None:
    golden(csv.render(several), "several.csv")


def test_json_holds_the_records(single: list[Result]) -> None:
    assert msgspec.json.decode(json.render(single), type=list[Result]) == single


def test_random_weights_show_no_accuracy(make_result: Make) -> None:
    text = terminal.render(summary_document([make_result(VGG16, "subject", scale=100.0)]), width=80, color=False)
    assert "top-1 99.0 %" in text
    baseline = replace(make_result(VGG16, "baseline"), cell=replace(make_result().cell, weights="random"))
    text = terminal.render(summary_document([baseline]), width=80, color=False)
    assert "top-1 99.0 %" not in text
    assert "— (random weights have no accuracy)" in text
