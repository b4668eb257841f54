"""Real child processes, on ONNX Runtime and on faulty variants of that backend."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from mbbench import data, weights
from mbbench.analysis.executed import split_moves
from mbbench.artifacts import reference
from mbbench.artifacts.export import export
from mbbench.backend import Artifact
from mbbench.machine import pick_cpus
from mbbench.measure import child
from mbbench.measure.jobs import cell
from mbbench.measure.jobs.cell import Job
from mbbench.measure.process import exit_failure, run_in_child
from mbbench.models import default_preprocessing
from mbbench.spec import ModelSpec, Settings

SPEC = ModelSpec(alpha=0.25, resolution=32, classes=10)
SETTINGS = Settings(
    min_samples=100, min_s=0.01, max_s=2.0, warmup_max_s=1.0, throughput_s=0.05, energy_s=0.1, bulk_batch=8,
    timeout_s=60,
)  # fmt: skip


@pytest.fixture(scope="module")
def job() -> Job:
    test = data.load_split("digits", (32, 32), "test", limit=40)
    random_weights = weights.random(SPEC)
    return Job(
        artifact=export(SPEC, random_weights.info.key, "onnx", random_weights.build).artifact(SPEC, 1),
        backend="onnxruntime",
        device="",
        settings=SETTINGS,
        cpus=pick_cpus(1),
        images=test.images,
        labels=test.labels,
        reason_without_top1=None,
        reference=reference.logits(random_weights, test),
        expected=reference.logits(random_weights, test),
        preprocessing=default_preprocessing("mobilenet_v1"),
    )


def run_cell(job: Job) -> cell.Report:
    return run_in_child(job, cell.START)


def test_a_job_is_unchanged_by_encoding_and_decoding(job: Job) -> None:
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
    assert [throughput.batch for throughput in measured.throughputs] in ([1, 4, 8], [1, 8])
    assert measured.throughput == max(measured.throughputs, key=lambda throughput: throughput.images_per_s)
    phases = ["start", "import", "compile", "first_inference", "steady"]
    assert [reading.phase for reading in measured.memory] == phases
    peaks = [reading.peak_rss_bytes for reading in measured.memory]
    assert peaks == sorted(peaks)
    assert measured.accuracy is not None
    assert (measured.accuracy.images, measured.accuracy.agreement) == (40, 1.0)
    assert measured.effective["cpus"] == str(job.cpus[0])
    assert measured.effective["threads"] == "1"
    timed, executed = (split_moves(nodes)[1] for nodes in (measured.node_times, measured.layers))
    assert [node.names[0] for node in timed] == [node.names[0] for node in executed]
    assert measured.node_runs == 20
    assert (measured.energy is None) == ("energy" in report.reasons)
    if not list(Path("/sys/class/powercap").glob("intel-rapl:*")):
        assert report.reasons["energy"] == "the kernel exposes no RAPL counter, as in most virtual machines"
    assert (measured.device_times, measured.device_memory_bytes) == (None, None)
    assert {"device_times", "device_memory_bytes"} <= report.reasons.keys()


def test_peak_memory_does_not_depend_on_the_number_of_samples(job: Job) -> None:
    peaks = []
    for min_samples in (100, 40_000):
        settings = replace(SETTINGS, min_samples=min_samples, max_s=20.0)
        measured = run_cell(replace(job, settings=settings)).measured
        assert measured.latency is not None and measured.latency.n >= min_samples
        peaks.append(measured.memory[-1].peak_rss_bytes)
    assert abs(peaks[1] - peaks[0]) < 2e6  # 150 bytes a sample were 6 MB


@pytest.mark.usefixtures("faulty_backends")
def test_a_failed_profile_is_a_reason_and_the_cell_succeeds(job: Job) -> None:
    report = run_cell(replace(job, backend="faulty-unprofiled"))
    assert (report.failure, report.phase) == (None, "done")
    assert report.measured.accuracy is not None
    assert (report.measured.node_times, report.measured.node_runs) == ((), None)
    assert report.reasons["layer_times"] == "profiling failed: RuntimeError: no counters here"


@pytest.mark.usefixtures("faulty_backends")
@pytest.mark.parametrize(
    ("backend", "cause"),
    [
        ("faulty-nan", "the session's outputs are not finite or have the wrong shape"),
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
def test_wrong_logits_of_batches_fail_after_the_latency_of_single_images(job: Job) -> None:
    report = run_cell(replace(job, backend="faulty-batch"))
    assert report.failure is not None
    assert report.failure.exit_code == 5
    assert report.failure.cause.startswith("the session's logits differ from PyTorch's by up to ")
    assert report.failure.remedy.endswith(f"; batch 1 is right, batch {job.settings.bulk_batch} is wrong")
    assert report.measured.latency is not None
    assert (report.measured.throughput, report.measured.accuracy) == (None, None)


@pytest.mark.usefixtures("faulty_backends")
def test_a_child_killed_by_the_kernel_leaves_its_measurements(job: Job) -> None:
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
    assert report.failure.cause == "the measuring process crashed with SIGSEGV in phase latency"
    assert report.failure.exit_code == 7


@pytest.mark.usefixtures("faulty_backends")
def test_libraries_that_crash_while_they_are_torn_down_fail_nothing(job: Job) -> None:
    report = run_cell(replace(job, backend="faulty-exit"))
    assert (report.phase, report.failure) == ("done", None)


@pytest.mark.usefixtures("faulty_backends")
def test_the_cause_of_an_unexpected_error_is_its_last_line(job: Job) -> None:
    report = run_cell(replace(job, backend="faulty-raise"))
    assert report.failure is not None
    assert report.failure.cause == (
        "the measuring process failed in phase latency: RuntimeError: internal error of the runtime"
    )
    assert report.failure.exit_code == 1


@pytest.mark.usefixtures("faulty_backends")
def test_a_child_that_takes_too_long_is_killed_and_leaves_its_measurements(job: Job) -> None:
    slow = replace(job, backend="faulty-slow", settings=replace(SETTINGS, timeout_s=5.0, sustain_s=1.0))
    report = run_cell(slow)
    assert report.failure is not None
    assert report.failure.cause == "the measurement took longer than 6 s (phase throughput)"
    assert report.measured.latency is not None


@pytest.mark.usefixtures("faulty_backends")
def test_the_child_has_the_users_environment_except_for_the_number_of_threads(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    effective = run_cell(replace(job, backend="faulty-environment")).measured.effective
    assert effective["OMP_NUM_THREADS"] == "1"
    assert effective["MBBENCH_CACHE"] == os.environ["MBBENCH_CACHE"]
    assert os.environ["OMP_NUM_THREADS"] == "7"


def test_an_exit_without_output_has_a_cause() -> None:
    assert exit_failure(3, "open", "").cause == "the measuring process failed in phase open: exit status 3"
    assert "SIGABRT" in exit_failure(-signal.SIGABRT, "open", "").cause
