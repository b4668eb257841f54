"""The commands that read stored results."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mbbench import store
from mbbench.cli import results
from mbbench.cli import stored as cli_stored
from mbbench.errors import RequirementError, UsageError
from mbbench.report import units
from mbbench.report.formats import html
from mbbench.report.verify import verify
from mbbench.result import Result
from mbbench.spec import ModelSpec

Make = Callable[..., Result]


@pytest.fixture
def stored(make_result: Make, tmp_path: Path) -> Path:
    path = tmp_path / "results.jsonl"
    store.append(path, make_result())
    return path


def test_each_output_file_is_written_in_the_format_of_its_suffix(
    stored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    targets = [tmp_path / "out" / f"report{suffix}" for suffix in results._RENDERERS]
    results.report([stored], targets)
    starts = ("<!doctype html>", "# 0.5 MobileNet-128 on openvino", "schema,id,time_utc", "[\n", "<?xml version")
    for target, start in zip(targets, starts, strict=True):
        assert target.read_text().lstrip().startswith(start)
    size = units.megabytes(targets[1].stat().st_size)
    assert f"{targets[1]} written: 1 result, {size}" in capsys.readouterr().err and size.startswith("0.00")


def test_several_result_files_make_one_report(stored: Path, make_result: Make, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    store.append(other, make_result(backend="torch"))
    results.report([stored, other], [tmp_path / "report.md"])
    assert "| 0.5 MobileNet-128 on torch |" in (tmp_path / "report.md").read_text()


def test_an_unknown_suffix_is_refused_before_any_file_is_read(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"report.pdf has no known format; end its name with one of .html, .md, .csv, .json, .xml"
    ):
        results.report([tmp_path / "none.jsonl"], [tmp_path / "report.pdf"])


def test_an_empty_or_missing_result_file_is_a_usage_error(tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    with pytest.raises(UsageError, match=r"no result in .*empty.jsonl; run `mbbench run` first"):
        results.show([empty])
    with pytest.raises(UsageError, match=r"cannot read .*none.jsonl"):
        results.show([tmp_path / "none.jsonl"])


def test_an_unwritable_report_file_is_a_usage_error(stored: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"cannot write .*report.md \(File exists\)"):
        results.report([stored], [tmp_path / "file" / "report.md"])


def test_show_prints_the_report_in_the_terminal(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results.show([stored])
    assert "Accuracy against latency ───" in capsys.readouterr().out


def test_verify_fails_for_a_report_that_contradicts_its_records(
    stored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "report.html"
    results.report([stored], [page])
    capsys.readouterr()
    with pytest.raises(RequirementError) as raised:
        results.verify(page)
    assert raised.value.exit_code == 5
    # make_result has round figures: its intervals were not computed from its counts.
    assert "accuracy.top1_ci95.low is 0.97 in the record but 0.97" in capsys.readouterr().err


def test_verifying_a_missing_report_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*none.html"):
        results.verify(tmp_path / "none.html")


def test_show_prints_at_most_forty_rows_of_a_table(
    make_result: Callable[..., Result], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "results.jsonl"
    for number in range(42):
        store.append(path, make_result(ModelSpec(alpha=(number + 1) / 100)))
    results.show([path])
    out = capsys.readouterr().out
    assert "2 more rows: `mbbench report` has all rows." in out
    speed = out[out.index("\nSpeed\n") : out.index("Memory, size and accuracy")]
    assert speed.count("MobileNet") == 40


def test_a_page_has_the_newest_results_and_says_how_many_it_leaves_out(
    make_result: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = [
        replace(make_result(backend=f"runtime{number % 4}"), id=f"{number:016x}", time_utc=f"2026-01-0{number + 1}")
        for number in range(6)
    ]
    path = tmp_path / "r.jsonl"
    for result in stored:
        store.append(path, result)
    monkeypatch.setattr(cli_stored, "_MAX_RESULTS", 3)
    page, table = tmp_path / "page.html", tmp_path / "all.csv"
    results.report([path], [page, table])
    assert "page.html written: 3 results (3 left out)" in capsys.readouterr().err
    text = page.read_text()
    shown = html.read_records(text, "page")
    assert [result.id for result in shown] == [stored[index].id for index in (3, 4, 5)]
    assert "3 older or repeated results are not on this page; a report in CSV or JSON has all." in text
    assert all("in the record" in fault for fault in verify(text, "page").faults)  # not in the page
    assert len(table.read_text().splitlines()) == 1 + 6
