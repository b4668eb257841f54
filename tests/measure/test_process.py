"""Real child processes, on ONNX Runtime and on versions of it that fail."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from mbbench import data, weights
from mbbench.analysis.executed import sort_out
from mbbench.artifacts import reference
from mbbench.artifacts.export import export
from mbbench.backend import Artifact
from mbbench.machine import pick_cpus
from mbbench.measure import child
from mbbench.measure.jobs import cell
from mbbench.measure.jobs.cell import Job
from mbbench.measure.process import explain_exit, run_in_child
from mbbench.models import normalization
from mbbench.spec import ModelSpec, Settings

SPEC = ModelSpec(alpha=0.25, resolution=32, classes=10)
SETTINGS = Settings(
    min_samples=100, min_s=0.01, max_s=2.0, warmup_max_s=1.0, throughput_s=0.05, energy_s=0.1, bulk_batch=8,
    timeout_s=60,
)  # fmt: skip


@pytest.fixture(scope="module")
def job() -> Job:
    test = data.load("digits", 32, "test", limit=40)
    found = weights.random(SPEC)
    return Job(
        artifact=export(SPEC, found.info.key, "onnx", found.build).artifact(SPEC, 1),
        backend="onnxruntime",
        device="",
        settings=SETTINGS,
        cpus=pick_cpus(1),
        images=test.images,
        labels=test.labels,
        reason_without_top1=None,
        reference=reference.logits(found, test),
        expected=reference.logits(found, test),
        normalization=normalization("mobilenet_v1"),
    )


def run_cell(job: Job) -> cell.Report:
    return run_in_child(job, cell.START)


def test_a_job_survives_its_encoding(job: Job) -> None:
    decoded = child.decode(child.encode(job), Job)
    assert decoded == job
    assert isinstance(decoded.artifact, Artifact)


def test_a_child_measures_everything(job: Job) -> None:
    report = run_cell(job)
    measured = report.measured
    assert report.failure is None
    assert report.phase == "done"
    assert measured.parity is not None and measured.parity.passed
    assert measured.parity.images == 16
    assert measured.cold is not None
    assert min(measured.cold.import_s, measured.cold.compile_s, measured.cold.first_inference_ms) > 0
    assert measured.cold.load_s is None
    assert report.reasons["cold.load_s"] == "the runtime reads and compiles in one call"
    assert measured.latency is not None
    assert measured.latency.n == len(measured.latency.samples_ms) >= 100
    assert measured.latency.median_ms == pytest.approx(
        sorted(measured.latency.samples_ms)[measured.latency.n // 2], 0.05
    )
    assert measured.throughput is not None
    assert measured.throughput.batch == 8
    phases = ["start", "import", "compile", "first_inference", "steady"]
    assert [reading.phase for reading in measured.memory] == phases
    peaks = [reading.peak_rss_bytes for reading in measured.memory]
    assert peaks == sorted(peaks)
    assert measured.accuracy is not None
    assert (measured.accuracy.images, measured.accuracy.agreement) == (40, 1.0)
    assert measured.effective["cpus"] == str(job.cpus[0])
    assert measured.effective["threads"] == "1"
    timed, executed = (sort_out(nodes)[1] for nodes in (measured.node_times, measured.layers))
    assert [node.names[0] for node in timed] == [node.names[0] for node in executed]
    assert measured.node_runs == 20
    assert (measured.energy is None) == ("energy" in report.reasons)
    if not list(Path("/sys/class/powercap").glob("intel-rapl:*")):
        assert report.reasons["energy"] == "the kernel shows no RAPL counter, as in most virtual machines"
    assert (measured.device_times, measured.device_memory_bytes) == (None, None)
    assert {"device_times", "device_memory_bytes"} <= report.reasons.keys()


@pytest.mark.usefixtures("faulty_backends")
def test_a_profile_that_fails_costs_nothing_but_itself(job: Job) -> None:
    report = run_cell(replace(job, backend="faulty-unprofiled"))
    assert (report.failure, report.phase) == (None, "done")
    assert report.measured.accuracy is not None
    assert (report.measured.node_times, report.measured.node_runs) == ((), None)
    assert report.reasons["layer_times"] == "profiling failed: RuntimeError: no counters here"


@pytest.mark.usefixtures("faulty_backends")
@pytest.mark.parametrize(
    ("backend", "cause"),
    [
        ("faulty-nan", "the session's outputs are not finite, or of the wrong shape"),
        ("faulty-constant", "the session's logits differ from PyTorch's"),
    ],
)
def test_wrong_outputs_are_never_timed(job: Job, backend: str, cause: str) -> None:
    report = run_cell(replace(job, backend=backend))
    assert report.failure is not None
    assert report.failure.exit_code == 5
    assert report.failure.cause.startswith(cause)
    assert report.measured.cold is not None
    assert (report.measured.latency, report.measured.throughput, report.measured.accuracy) == (None, None, None)


@pytest.mark.usefixtures("faulty_backends")
def test_a_child_killed_by_the_kernel_leaves_what_it_had_measured(job: Job) -> None:
    report = run_cell(replace(job, backend="faulty-killed"))
    assert report.failure is not None
    assert report.failure.exit_code == 7
    assert report.failure.cause == (
        "the measuring process was killed by the kernel or another process (SIGKILL, phase throughput)"
    )
    assert report.measured.latency is not None
    assert report.measured.throughput is None


@pytest.mark.usefixtures("faulty_backends")
def test_a_crash_names_its_signal_and_phase(job: Job) -> None:
    report = run_cell(replace(job, backend="faulty-crash"))
    assert report.failure is not None
    assert report.failure.cause == "the measuring process died of SIGSEGV in phase latency"
    assert report.failure.exit_code == 7


@pytest.mark.usefixtures("faulty_backends")
def test_an_unexpected_error_gives_its_last_line(job: Job) -> None:
    report = run_cell(replace(job, backend="faulty-raise"))
    assert report.failure is not None
    assert report.failure.cause == (
        "the measuring process failed in phase latency: RuntimeError: the runtime lost its mind"
    )
    assert report.failure.exit_code == 1


@pytest.mark.usefixtures("faulty_backends")
def test_a_child_that_takes_too_long_is_ended_and_its_figures_kept(job: Job) -> None:
    slow = replace(job, backend="faulty-slow", settings=replace(SETTINGS, timeout_s=6.0))
    report = run_cell(slow)
    assert report.failure is not None
    assert report.failure.cause == "took longer than 6 s (phase throughput)"
    assert report.measured.latency is not None


@pytest.mark.usefixtures("faulty_backends")
def test_the_childs_environment_is_the_users_but_for_the_number_of_threads(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    effective = run_cell(replace(job, backend="faulty-telling")).measured.effective
    assert effective["OMP_NUM_THREADS"] == "1"
    assert effective["MBBENCH_CACHE"] == os.environ["MBBENCH_CACHE"]
    assert os.environ["OMP_NUM_THREADS"] == "7"


def test_a_silent_end_still_has_a_reason() -> None:
    assert explain_exit(3, "open", "").cause == "the measuring process failed in phase open: exit status 3"
    assert "SIGABRT" in explain_exit(-signal.SIGABRT, "open", "").cause
