"""Gates in every format, compared with golden files."""

from collections.abc import Callable
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from mbbench.compare.changes import Change, Limit
from mbbench.compare.gate import Verdict
from mbbench.compare.noise import Floor, Noise
from mbbench.compare.record import CellVerdict, GateRecord
from mbbench.report.formats import junit, markdown, terminal
from mbbench.report.sections import verdicts
from mbbench.report.summary import summary_document
from mbbench.result import Failure, PausedCalls, Result, Window
from mbbench.spec import Settings
from mbbench.stats import Interval
from tests.compare.test_gate import readings

Make = Callable[..., Result]
Golden = Callable[[str, str], None]

SLOWER = Verdict(
    change=Change(
        metric="p50", baseline=1.312, candidate=1.354, change=0.032, ci95=Interval(0.027, 0.037), p_value=1e-4
    ),
    limit=Limit(metric="p50", worse=0.03),
    outcome="fail",
    confirmed=True,
)
REFUTED = Verdict(
    change=Change(metric="p99", baseline=1.9, candidate=2.0, change=0.05, ci95=Interval(-0.02, 0.13), p_value=0.1),
    limit=Limit(metric="p99", worse=0.10),
    outcome="inconclusive",
    confirmed=False,
)
SIZE = Verdict(
    change=Change(metric="size", baseline=850_000, candidate=851_000, change=1 / 850),
    limit=Limit(metric="size", worse=0.01),
    outcome="pass",
)
TOP1 = Verdict(
    change=Change(
        metric="top1", baseline=0.97, candidate=0.967, change=-0.003, ci95=Interval(-0.012, 0.006), p_value=0.6
    ),
    limit=Limit(metric="top1", worse=0.005),
    outcome="inconclusive",
)
UNLABELED = Verdict(
    change=Change(metric="top1", baseline=None, candidate=None, change=None, reason="there are no usable labels"),
    limit=Limit(metric="top1", worse=0.005),
    outcome="inconclusive",
)


@pytest.fixture
def gate(make_result: Make) -> GateRecord:
    """A cell that fails on a calibrated machine, one identical to the baseline, one without labels, and an error."""
    result = make_result()
    noise = Noise(
        time_utc="2026-01-01T00:00:00+00:00",
        rounds=20,
        seconds=5.0,
        floors={
            "p50": Floor(within=0.002, between=0.03, detectable=0.008),
            "p99": Floor(within=0.05, between=0.1, detectable=0.2),
        },
    )
    failed = CellVerdict(
        cell=result.cell, baseline_sha256="aa", candidate_sha256="bb", rounds=(readings(), readings()),
        verdicts=(SLOWER, REFUTED, SIZE, TOP1), noise=noise,
    )  # fmt: skip
    same_file = Change(
        metric="p50", baseline=None, candidate=None, change=0.0, reason="the artifact is the baseline's, byte for byte"
    )
    same = CellVerdict(
        cell=replace(result.cell, backend="torch"), baseline_sha256="aa", candidate_sha256="aa", rounds=(),
        verdicts=(Verdict(change=same_file, limit=SLOWER.limit, outcome="pass"),), noise=noise,
    )  # fmt: skip
    unlabeled = CellVerdict(
        cell=replace(result.cell, precision="int8"), baseline_sha256="aa", candidate_sha256="cc", rounds=(readings(),),
        verdicts=(UNLABELED,), noise=None,
    )  # fmt: skip
    error = CellVerdict(
        cell=replace(result.cell, backend="onnxruntime"), baseline_sha256="aa", candidate_sha256="dd", rounds=(),
        verdicts=(), noise=None, failure=Failure(cause="killed by SIGKILL", remedy="free memory", exit_code=7),
    )  # fmt: skip
    return GateRecord(
        schema=1, time_utc="2026-01-02T03:04:05+00:00", machine=result.machine, versions=result.versions,
        conditions=result.conditions, cells=(failed, same, unlabeled, error),
    )  # fmt: skip


def test_a_gate_in_a_terminal(gate: GateRecord, golden: Golden) -> None:
    golden(terminal.render(verdicts.gate_document(gate), width=80, color=False), "gate.txt")


def test_a_gate_as_a_job_summary(gate: GateRecord, golden: Golden) -> None:
    golden(markdown.render(verdicts.gate_document(gate)), "gate.md")


def test_a_gate_as_junit(gate: GateRecord, golden: Golden) -> None:
    golden(junit.render_gate(gate), "gate.xml")


def test_the_headline_names_the_outcome_and_the_deciding_cells(gate: GateRecord) -> None:
    failed, same, unlabeled, error = gate.cells
    assert verdicts.headline(replace(gate, cells=(same,))) == "PASS, 1 of 1 cells."
    assert verdicts.headline(replace(gate, cells=(same, unlabeled))) == (
        "INCONCLUSIVE, 1 of 2 cells: 0.5 MobileNet-128 int8 on openvino (Top-1)."
    )
    assert verdicts.headline(replace(gate, cells=(failed, same, unlabeled))) == (
        "FAIL, 1 of 3 cells: 0.5 MobileNet-128 on openvino (p50 +3.2 %)."
    )
    assert verdicts.headline(gate) == (
        "FAIL, 1 of 4 cells: 0.5 MobileNet-128 on openvino (p50 +3.2 %); 1 could not be measured."
    )
    assert verdicts.headline(replace(gate, cells=(error, same, unlabeled))) == (
        "ERROR, 1 of 3 cells: 0.5 MobileNet-128 on onnxruntime (killed by SIGKILL)."
    )


def test_a_gate_without_a_measured_cell_is_an_error_in_every_document(gate: GateRecord) -> None:
    broken = replace(gate, cells=gate.cells[3:], conditions=())
    headline = "ERROR, 1 of 1 cells: 0.5 MobileNet-128 on onnxruntime (killed by SIGKILL)."
    note = "Could not be measured: killed by SIGKILL; free memory."
    document = verdicts.gate_document(broken)
    (table,) = document.tables
    assert (document.headline, table.rows, table.notes) == (headline, (("All", "—", "—", "—", "—", "ERROR"),), (note,))
    for text in (markdown.render(document), terminal.render(document, width=100, color=False)):
        assert headline in text and note in text
        assert "pass" not in text.lower()
    (suite,) = ElementTree.fromstring(junit.render_gate(broken))
    counts = {name: suite.get(name) for name in ("tests", "failures", "skipped", "errors")}
    assert counts == {"tests": "1", "failures": "0", "skipped": "0", "errors": "1"}
    ((case,),) = (suite,)
    (error,) = case
    assert (case.get("name"), error.tag) == ("measurement", "error")
    assert error.get("message") == "killed by SIGKILL; free memory"


def test_the_noise_floor(gate: GateRecord, golden: Golden) -> None:
    noise = gate.cells[0].noise
    assert noise is not None
    golden(markdown.render_table(verdicts.noise_table(gate.cells[0].cell, noise)) + "\n", "noise.md")


def test_curves_and_notes_on_disturbances(make_result: Make, golden: Golden) -> None:
    result = make_result()
    latency = result.measured.latency
    assert latency is not None
    windows = tuple(Window(start_s=10.0 * i, n=100, median_ms=1.0 + max(0, i - 30) / 100) for i in range(60))
    paused = tuple(PausedCalls(pause_ms=pause, n=30, median_ms=0.5 + pause / 100) for pause in (0, 1.5, 6.25, 25, 100))
    disturbed = replace(latency, imprecise=True, median_ci95_ms=Interval(0.49, 0.53), outliers=20, drift=0.12)
    measured = replace(result.measured, latency=disturbed, sustained=windows, duty_cycle=paused)
    result = replace(result, measured=measured, settings=Settings(sustain_s=600.0, idle_ms=100.0))
    golden(terminal.render(summary_document([result]), width=80, color=False), "curves.txt")
