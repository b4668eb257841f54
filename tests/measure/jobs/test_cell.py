"""The stages of a session's making; whole measurements are in test_process.py, in real child processes."""

import pytest

from mbbench.backend import Stage
from mbbench.measure.jobs import cell
from mbbench.measure.jobs.cell import Stages
from mbbench.result import Cold


def stages(monkeypatch: pytest.MonkeyPatch, *announced: Stage) -> Stages:
    """Each stage begins when the clock strikes the next of 1, 2, 4, 8."""
    strikes = iter(2.0**power for power in range(5))
    found = Stages()
    for stage in announced:
        strike = next(strikes)
        monkeypatch.setattr(cell, "perf_counter", lambda now=strike: now)
        found(stage)
    strike = next(strikes)
    monkeypatch.setattr(cell, "perf_counter", lambda: strike)
    found.end_phase()
    return found


def test_each_stage_lasts_until_the_next_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    found = stages(monkeypatch, "import", "load", "compile")
    assert found.cold(0.5) == (Cold(import_s=1.0, load_s=2.0, compile_s=4.0, first_inference_ms=500.0), {})
    assert [reading.phase for reading in found.memory] == ["start", "import", "load", "compile"]


def test_a_runtime_that_reads_and_compiles_in_one_call_has_no_load_time(monkeypatch: pytest.MonkeyPatch) -> None:
    found = stages(monkeypatch, "import", "compile")
    reasons = {"cold.load_s": "the runtime reads and compiles in one call"}
    assert found.cold(0.5) == (Cold(import_s=1.0, load_s=None, compile_s=2.0, first_inference_ms=500.0), reasons)
    assert [reading.phase for reading in found.memory] == ["start", "import", "compile"]
