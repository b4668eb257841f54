"""Pairs of artifacts in real child processes on ONNX Runtime, and the order of calls on a scripted clock."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mbbench import data, weights
from mbbench.artifacts.export import export
from mbbench.machine import pick_cpus
from mbbench.measure import memory
from mbbench.measure.jobs import footprint, pair
from mbbench.measure.jobs.pair import MIN_REPLICATES, Job, Report
from mbbench.measure.latency import time_pairs
from mbbench.measure.process import run_in_child
from mbbench.models import default_preprocessing
from mbbench.result import Memory
from mbbench.spec import ModelSpec, Settings
from mbbench.testing import FakeClock

SPEC = ModelSpec(alpha=0.25, resolution=32, classes=10)
SETTINGS = Settings(bulk_batch=8, timeout_s=60)


@pytest.fixture(scope="module")
def job() -> Job:
    test = data.load_split("digits", (32, 32), "test", limit=40)
    random_weights = weights.random(SPEC)
    artifact = export(SPEC, random_weights.info.key, "onnx", random_weights.build).artifact(SPEC, 1)
    return Job(
        baseline=artifact,
        candidate=artifact,
        backend="onnxruntime",
        device="",
        settings=SETTINGS,
        cpus=pick_cpus(1),
        images=test.images,
        labels=test.labels,
        preprocessing=default_preprocessing("mobilenet_v1"),
        seconds=0.5,
        answers=True,
    )


def measure(job: Job) -> Report:
    return run_in_child(job, pair.START)


def test_every_other_pair_runs_in_reverse_order() -> None:
    clock, calls = FakeClock(), ""

    def call(name: str, ms: int) -> Callable[[], None]:
        def run() -> None:
            nonlocal calls
            calls += name
            clock.now_ns += ms * 1_000_000

        return run

    first_ns, second_ns = time_pairs(call("a", 1), call("b", 3), warm_pairs=1, min_pairs=3, seconds=0.001, clock=clock)
    assert calls == "ab" + "abba" * 2
    assert first_ns == [1_000_000] * 4
    assert second_ns == [3_000_000] * 4


def test_timing_continues_until_the_time_is_over() -> None:
    clock = FakeClock()

    def call() -> None:
        clock.now_ns += 1_000_000

    first_ns, second_ns = time_pairs(call, call, warm_pairs=0, min_pairs=1, seconds=0.010, clock=clock)
    assert len(first_ns) == len(second_ns) == 6


def test_a_file_paired_with_itself_has_an_even_number_of_replicates_and_equal_answers(job: Job) -> None:
    report = measure(job)
    assert report.failure is None
    assert report.phase == "done"
    assert len(report.replicates) >= MIN_REPLICATES
    assert len(report.replicates) % 2 == 0
    for replicate in report.replicates:
        assert len(replicate.baseline_ms) == len(replicate.candidate_ms) >= 8
        assert min(*replicate.baseline_ms, *replicate.candidate_ms) > 0
    answers = report.answers
    assert answers is not None
    assert (answers.images, answers.agreeing) == (40, 40)
    assert answers.baseline_right == answers.candidate_right
    assert (answers.only_baseline_right, answers.only_candidate_right) == (0, 0)


def test_latency_and_answers_are_measured_only_on_request(job: Job) -> None:
    untimed = measure(replace(job, seconds=None))
    assert (untimed.replicates, untimed.answers is None) == ((), False)
    timed = measure(replace(job, answers=False))
    assert (len(timed.replicates) > 0, timed.answers) == (True, None)


def test_without_labels_only_agreement_is_measured(job: Job) -> None:
    answers = measure(replace(job, seconds=None, labels=None)).answers
    assert answers is not None
    assert (answers.agreeing, answers.baseline_right, answers.only_candidate_right) == (40, None, None)


@pytest.mark.usefixtures("faulty_backends")
def test_meaningless_outputs_are_a_failure(job: Job) -> None:
    failure = measure(replace(job, seconds=None, backend="faulty-nan")).failure
    assert failure is not None
    assert (failure.exit_code, failure.cause) == (
        5, "the baseline's outputs are not finite, or are the same for every image",
    )  # fmt: skip


@pytest.mark.usefixtures("faulty_backends")
def test_replicates_survive_a_crash(job: Job) -> None:
    report = measure(replace(job, backend="faulty-killed"))
    assert report.failure is not None
    assert "SIGKILL, phase accuracy" in report.failure.cause
    assert len(report.replicates) >= MIN_REPLICATES


def test_a_missing_file_is_a_failure_that_names_it(job: Job, tmp_path: Path) -> None:
    missing = replace(job.candidate, path=tmp_path / "missing.onnx")
    failure = measure(replace(job, candidate=missing)).failure
    assert failure is not None
    assert failure.exit_code == 6
    assert "missing.onnx" in failure.cause


def test_the_footprint_is_the_memory_of_one_session(job: Job) -> None:
    report = run_in_child(
        footprint.Job(artifact=job.baseline, backend="onnxruntime", device="", settings=SETTINGS, cpus=job.cpus),
        footprint.START,
    )
    assert report.failure is None
    assert report.peak_rss_bytes is not None and 20e6 < report.peak_rss_bytes < 500e6
    assert report.added_rss_bytes is not None and 5e6 < report.added_rss_bytes < report.peak_rss_bytes - 10e6


def test_added_memory_is_the_peak_minus_what_was_resident_before_the_runtime(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings = {
        "start": Memory(phase="start", rss_bytes=30_000_000, peak_rss_bytes=45_000_000),
        "steady": Memory(phase="steady", rss_bytes=90_000_000, peak_rss_bytes=125_000_000),
    }
    request = footprint.Job(artifact=job.baseline, backend="onnxruntime", device="", settings=SETTINGS, cpus=job.cpus)
    monkeypatch.setattr(memory, "read", readings.get)
    report = footprint.measure(request, (), lambda _: None)
    assert report == footprint.Report(phase="done", peak_rss_bytes=125_000_000, added_rss_bytes=95_000_000)
    monkeypatch.setattr(memory, "read", lambda _: None)
    assert footprint.measure(request, (), lambda _: None) == footprint.Report(phase="done")
