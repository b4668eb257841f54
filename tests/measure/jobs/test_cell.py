"""The stages of opening a session; test_process.py measures whole cells in real child processes."""

import pytest

from mbbench.backend import Stage
from mbbench.measure.jobs import cell
from mbbench.measure.jobs.cell import Stages
from mbbench.result import ColdStart


def run_stages(monkeypatch: pytest.MonkeyPatch, *names: Stage) -> Stages:
    """Begin the stages at 1, 2, 4 and 8 s."""
    times = iter(2.0**power for power in range(5))
    stages = Stages()
    for name in names:
        time = next(times)
        monkeypatch.setattr(cell, "perf_counter", lambda now=time: now)
        stages(name)
    time = next(times)
    monkeypatch.setattr(cell, "perf_counter", lambda: time)
    stages.end_phase()
    return stages


def test_a_stage_lasts_until_the_next_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    stages = run_stages(monkeypatch, "import", "load", "compile")
    assert stages.cold(0.5) == (ColdStart(import_s=1.0, load_s=2.0, compile_s=4.0, first_inference_ms=500.0), {})
    assert [reading.phase for reading in stages.memory] == ["start", "import", "load", "compile"]


def test_a_runtime_that_reads_and_compiles_in_one_call_has_no_load_time(monkeypatch: pytest.MonkeyPatch) -> None:
    stages = run_stages(monkeypatch, "import", "compile")
    reasons = {"cold.load_s": "the runtime reads and compiles in one call"}
    assert stages.cold(0.5) == (ColdStart(import_s=1.0, load_s=None, compile_s=2.0, first_inference_ms=500.0), reasons)
    assert [reading.phase for reading in stages.memory] == ["start", "import", "compile"]
