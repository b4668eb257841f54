"""A GPU, simulated by the distribution in tests/fake_gpu, goes through every command as a CPU does."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mbbench import store
from mbbench.report.formats import markdown
from mbbench.report.page import build_page
from mbbench.report.sections.cell import cell_table

FAKE_GPU = Path(__file__).parent / "fake_gpu"
PROFILE = """
alpha = 0.25
res = 32
images = 40
weights = "random"
[settings]
min_samples = 100
min_s = 0.1
max_s = 1.0
warmup_max_s = 1.0
throughput_s = 0.3
energy_s = 1.0
scenario_s = 0.5
"""

Mbbench = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def mbbench(tmp_path: Path) -> Mbbench:
    """Return a function that runs the command line in a new process, on the simulated GPU unless `device` is given."""
    profile = tmp_path / "short.toml"
    profile.write_text(PROFILE)
    environment = {**os.environ, "PYTHONPATH": str(FAKE_GPU), "COLUMNS": "140"}

    def run(command: str, *arguments: str | Path, device: str = "cuda:0") -> subprocess.CompletedProcess[str]:
        options = ("--backend", "fake-gpu", "--device", device, "--profile", profile)
        line = [sys.executable, "-m", "mbbench", command, *arguments, *options]
        return subprocess.run(list(map(str, line)), env=environment, capture_output=True, text=True, cwd=tmp_path)

    return run


def test_a_run_measures_parity_scenarios_energy_and_memory_on_the_device(mbbench: Mbbench, tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    process = mbbench("run", "--precision", "fp32,bf16", "--scenario", "offline", "--streams", "1", "--results", path)
    assert process.returncode == 0, process.stderr
    assert mbbench("run", "--results", path, device="cpu").returncode == 0
    fp32, bf16, cpu = store.read(path)
    for result, precision in ((fp32, "fp32"), (bf16, "bf16")):
        measured = result.measured
        assert result.cell.device == "cuda:0"
        assert measured.parity is not None and measured.parity.passed
        assert measured.effective["mode"] == "compile, CUDA graph"
        assert measured.effective["tf32"] == "off"
        assert result.executed is not None
        assert [(share.precision, share.mult_adds_share) for share in result.executed.shares] == [(precision, 1.0)]
        assert measured.device_memory_bytes == 400_000_000
        assert measured.device_times is not None and measured.device_times.compute_ms == 1.0
        assert measured.energy is not None and measured.energy.busy_watts == pytest.approx(30, rel=0.2)
        assert [served.scenario for served in measured.served] == ["offline"]
        assert result.ceilings is None and result.reasons["ceilings"] == "ceilings are measured for CPUs only"
    assert (cpu.cell.device, cpu.measured.device_memory_bytes) == ("cpu", None)
    assert "Device memory" in process.stdout
    settings = {row[0]: row[1] for row in cell_table(fp32).rows}["Settings"]
    assert "tf32 off" in settings and "mode compile, CUDA graph" in settings

    page = markdown.render_page(build_page([fp32, bf16, cpu]))
    assert "**On Simulated GPU (compute capability 9.0): 0.25 MobileNet-32 on fake-gpu: " in page
    assert f"**On {cpu.machine.cpu}: 0.25 MobileNet-32 on fake-gpu: " in page
    assert "fake-gpu cuda:0 in bf16 takes " in page
    assert "TF32 is off: fp32 cells multiply in fp32." in page
    assert f"Not measured on {cpu.machine.cpu}: " in page


def test_the_gate_passes_an_unchanged_network(mbbench: Mbbench, tmp_path: Path) -> None:
    baseline = tmp_path / "baseline"
    assert mbbench("keep", baseline).returncode == 0
    process = mbbench("check", "--baseline", baseline, "--fail-on", "p50:100%", "--format", "json")
    assert process.returncode == 0, process.stderr
    (cell,) = json.loads(process.stdout)["cells"]
    assert cell["cell"]["device"] == "cuda:0"
    assert [verdict["outcome"] for verdict in cell["verdicts"]] == ["pass"]
