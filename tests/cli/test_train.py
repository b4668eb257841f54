"""The latency that `mbbench compress --max-latency` measures."""

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mbbench import run
from mbbench.cli import train
from mbbench.cli.progress import Display
from mbbench.errors import BackendError
from mbbench.measure import ceilings
from mbbench.measure.jobs.cell import Job, Report
from mbbench.measure.process import run_in_child
from mbbench.profile import Profile
from mbbench.spec import ModelSpec, Precision, RunSpec

SPEC = ModelSpec(alpha=0.25, resolution=32, classes=10)


def make_display() -> Display:
    return Display(Console(file=StringIO(), force_terminal=True, width=80, color_system=None))


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_latency_is_measured_in_the_precision_while_nothing_is_drawn(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, precision: Precision
) -> None:
    drawing: list[str] = []
    jobs: list[Job] = []
    reports: list[Report] = []
    specs: list[RunSpec] = []
    monkeypatch.setattr("rich.progress.Progress.start", lambda self: drawing.append("start"))
    monkeypatch.setattr("rich.progress.Progress.stop", lambda self: drawing.append("stop"))

    def measure(job: Any, start: Any) -> Any:
        assert drawing.count("start") == drawing.count("stop") > 0
        report = run_in_child(job, start)
        if isinstance(job, Job):
            jobs.append(job)
            reports.append(report)
        return report

    real_run = run.run
    monkeypatch.setattr(run, "run_in_child", measure)
    monkeypatch.setattr(ceilings, "run_in_child", measure)
    monkeypatch.setattr(run, "run", lambda spec, *rest: specs.append(spec) or real_run(spec, *rest))  # type: ignore[func-returns-value]
    profile = Profile(alpha=(0.25,), res=(32,), backend=("onnxruntime",), precision=(precision,))
    with make_display() as display:
        display.update("decoding images", 1, 2)
        latency_ms = train._latency_ms(profile, display, SPEC)
    (job,), (report,), (spec,) = jobs, reports, specs
    assert report.measured.latency is not None
    assert latency_ms == report.measured.latency.median_ms
    assert job.artifact.precision == precision
    executed = {node.precision for node in report.measured.layers}
    assert ("int8" in executed) == (precision == "int8")
    assert spec.calibration == "random"


def test_a_precision_that_the_backend_would_emulate_is_refused() -> None:
    profile = Profile(alpha=(0.25,), res=(32,), backend=("onnxruntime",), precision=("bf16",))
    with make_display() as display, pytest.raises(BackendError, match=r"onnxruntime has no native bf16 on cpu"):
        train._latency_ms(profile, display, SPEC)
