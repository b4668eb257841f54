"""Accuracy in shards equals that of a single process to the last bit."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbbench import run, weights
from mbbench.analysis import requirements
from mbbench.artifacts import prepare
from mbbench.artifacts.prepare import Ready
from mbbench.cluster import shards
from mbbench.errors import CellsFailedError
from mbbench.events import Event
from mbbench.machine import fingerprint
from mbbench.measure.accuracy import Answers
from mbbench.result import Failure, Result
from mbbench.spec import Cell, ModelSpec, Precision, RunSpec, Settings, Shard

SETTINGS = Settings(min_samples=20, min_s=0.01, max_s=1.0, warmup_max_s=0.5, throughput_s=0.05, bulk_batch=8)


def quiet(event: Event) -> None:
    pass


@pytest.fixture
def spec() -> RunSpec:
    """A cell whose weights are a file, so that its answers are compared with the labels."""
    model = ModelSpec(alpha=0.25, resolution=32, classes=10)
    file = str(weights.random(model).path)
    cell = Cell(model=model, role="subject", weights=file, backend="onnxruntime", device="")
    return RunSpec(cells=(cell,), data="digits", images=100, settings=SETTINGS)


@given(st.integers(1, 60_000), st.integers(1, 3_000), st.integers(1, 60))
def test_shards_cover_all_images_and_begin_where_calls_begin(count: int, step: int, max_shards: int) -> None:
    planned = shards.split_images(count, step, max_shards)
    assert [image for shard in planned for image in range(count)[shard.rows]] == list(range(count))
    assert 1 <= len(planned) <= max_shards
    assert all(shard.start % step == 0 for shard in planned)
    sizes = [shard.stop - shard.start for shard in planned]
    assert len(planned) == 1 or min(sizes) >= shards.MIN_IMAGES
    assert max(sizes) - min(sizes) <= 2 * step


def test_only_many_images_are_split() -> None:
    assert shards.split_images(1999, 32, 4) == (Shard(0, 1999),)
    assert shards.split_images(2048, 32, 4) == (Shard(0, 1024), Shard(1024, 2048))
    assert shards.split_images(50_000, 32, 4) == (
        Shard(0, 12_480), Shard(12_480, 24_992), Shard(24_992, 37_504), Shard(37_504, 50_000)
    )  # fmt: skip
    assert shards.split_images(50_000, 32, 1) == (Shard(0, 50_000),)


@pytest.mark.usefixtures("all_threads")
@pytest.mark.parametrize(
    ("backend", "precision"),
    [
        ("onnxruntime", "fp32"),
        ("openvino", "fp32"),
        pytest.param("onnxruntime", "int8", marks=pytest.mark.slow),
        pytest.param("torch-eager", "fp32", marks=pytest.mark.slow),
    ],
)
def test_joined_shards_equal_a_single_process(
    spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str, precision: Precision
) -> None:
    monkeypatch.setattr(shards, "MIN_IMAGES", 32)
    spec = replace(spec, cells=(replace(spec.cells[0], backend=backend, precision=precision),))
    (whole,) = run.run(spec, tmp_path / "whole.jsonl", quiet)
    with monkeypatch.context() as patch:
        patch.setattr(requirements, "first_failure", pytest.fail)  # not called without accuracy
        (result,) = run.run(spec, tmp_path / "without_accuracy.jsonl", quiet, evaluate=False)
    assert (result.failure, result.measured.accuracy, result.id) == (None, None, whole.id)
    assert result.measured.latency is not None and result.measured.layers
    measured = shards.measured_artifact(spec)
    planned = shards.plan_shards(spec, 3)
    assert planned == (Shard(0, 32), Shard(32, 64), Shard(64, 100))
    parts = [shards.evaluate_shard(spec, result.id, measured, measured.artifact.path, shard) for shard in planned]
    joined = shards.join(spec, result, parts)
    assert whole.measured.accuracy is not None and whole.measured.accuracy.drop is not None
    assert joined.measured.accuracy == whole.measured.accuracy
    assert joined.reasons == result.reasons
    assert replace(joined.measured, accuracy=None) == result.measured


def id_here(spec: RunSpec, artifact_sha256: str) -> str:
    """The id of the only cell's result on this machine."""
    (ready,) = prepare.prepare_all(spec, quiet)
    assert isinstance(ready, Ready)
    return run.result_id(spec, fingerprint(), ready.cell, ready, artifact_sha256)


def test_a_machine_that_would_measure_something_else_is_refused(spec: RunSpec) -> None:
    measured = shards.measured_artifact(spec)
    id = id_here(spec, measured.artifact.sha256)
    fewer = replace(spec, images=99)
    for other_spec, other_id, other_artifact in (
        (fewer, id, measured),
        (spec, "another", measured),
        (spec, id, replace(measured, weights_sha256="another")),
        (spec, id, replace(measured, artifact=replace(measured.artifact, sha256="another"))),
    ):
        with pytest.raises(CellsFailedError, match="a worker's versions, test images or weights differ"):
            shards.evaluate_shard(other_spec, other_id, other_artifact, measured.artifact.path, Shard(0, 32))


@pytest.mark.usefixtures("faulty_backends")
def test_a_failed_shard_reports_the_reason(spec: RunSpec) -> None:
    spec = replace(spec, cells=(replace(spec.cells[0], backend="faulty-killed"),))
    measured = shards.measured_artifact(spec)
    id = id_here(spec, measured.artifact.sha256)
    with pytest.raises(CellsFailedError, match=r"was killed by .* \(SIGKILL, phase accuracy\)"):
        shards.evaluate_shard(spec, id, measured, measured.artifact.path, Shard(32, 64))


def test_requirements_are_checked_after_joining(spec: RunSpec, make_result: Callable[..., Result]) -> None:
    measured = make_result()
    result = replace(measured, measured=replace(measured.measured, accuracy=None), reasons={"energy": "no meter"})
    parts = [
        Answers(
            classes=4,
            session=(0, prediction),
            reference=(0, 1),
            labels=(0, 1),
            reason_without_top1=None,
            among_five=(),
            sum_errors=(0.5, 0.25),
            max_error=0.5,
        )
        for prediction in (1, 2)
    ]
    joined = shards.join(replace(spec, max_drop=20.0), result, parts)
    assert joined.measured.accuracy is not None and joined.measured.accuracy.top1 == 0.75
    assert joined.measured.latency == result.measured.latency
    assert joined.failure is not None and joined.failure.exit_code == 5
    assert joined.failure.cause.startswith("top-1 dropped by 25.00 points")
    assert joined.reasons == {
        "energy": "no meter",
        "accuracy.top5": "the model has at most five classes, so the top five include all of them",
    }
    assert shards.join(replace(spec, max_drop=30.0), result, parts).failure is None
    failure = shards.join(replace(spec, require_effective=True), result, parts).failure
    assert failure == Failure(
        cause="the cell did not run entirely in fp32: the backend does not report what it executed",
        remedy="see `mbbench explain`, or leave out --require-effective",
        exit_code=5,
    )
