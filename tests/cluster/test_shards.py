"""Accuracy in shards is, to the last bit, what one process says of all images."""

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
    """A cell whose weights are a file: what they answer is held against the labels."""
    model = ModelSpec(alpha=0.25, resolution=32, classes=10)
    file = str(weights.random(model).path)
    cell = Cell(model=model, role="subject", weights=file, backend="onnxruntime", device="")
    return RunSpec(cells=(cell,), data="digits", images=100, settings=SETTINGS)


@given(st.integers(1, 60_000), st.integers(1, 3_000), st.integers(1, 60))
def test_shards_are_all_images_at_the_bounds_of_calls(count: int, step: int, most: int) -> None:
    found = shards.divide(count, step, most)
    assert [image for shard in found for image in range(count)[shard.rows]] == list(range(count))
    assert 1 <= len(found) <= most
    assert all(shard.start % step == 0 for shard in found)
    sizes = [shard.stop - shard.start for shard in found]
    assert len(found) == 1 or min(sizes) >= shards.MIN_IMAGES
    assert max(sizes) - min(sizes) <= 2 * step


def test_only_many_images_are_shared() -> None:
    assert shards.divide(1999, 32, 4) == (Shard(0, 1999),)
    assert shards.divide(2048, 32, 4) == (Shard(0, 1024), Shard(1024, 2048))
    assert shards.divide(50_000, 32, 4) == (
        Shard(0, 12_480), Shard(12_480, 24_992), Shard(24_992, 37_504), Shard(37_504, 50_000)
    )  # fmt: skip
    assert shards.divide(50_000, 32, 1) == (Shard(0, 50_000),)


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
def test_joined_shards_say_what_one_process_says(
    spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str, precision: Precision
) -> None:
    monkeypatch.setattr(shards, "MIN_IMAGES", 32)
    spec = replace(spec, cells=(replace(spec.cells[0], backend=backend, precision=precision),))
    (whole,) = run.run(spec, tmp_path / "whole.jsonl", quiet)
    with monkeypatch.context() as patch:
        patch.setattr(requirements, "unmet", pytest.fail)  # not before accuracy is known
        (result,) = run.run(spec, tmp_path / "apart.jsonl", quiet, evaluate=False)
    assert (result.failure, result.measured.accuracy, result.id) == (None, None, whole.id)
    assert result.measured.latency is not None and result.measured.layers
    subject = shards.subject(spec)
    planned = shards.plan_shards(spec, 3)
    assert planned == (Shard(0, 32), Shard(32, 64), Shard(64, 100))
    parts = [shards.answers(spec, result.id, subject, subject.artifact.path, shard) for shard in planned]
    joined = shards.join(spec, result, parts)
    assert whole.measured.accuracy is not None and whole.measured.accuracy.drop is not None
    assert joined.measured.accuracy == whole.measured.accuracy
    assert joined.reasons == result.reasons
    assert replace(joined.measured, accuracy=None) == result.measured


def ready(spec: RunSpec) -> Ready:
    (found,) = prepare.prepare_all(spec, quiet)
    assert isinstance(found, Ready)
    return found


def test_a_machine_that_would_measure_something_else_evaluates_nothing(spec: RunSpec) -> None:
    subject = shards.subject(spec)
    id = run.identity(spec, fingerprint(), ready(spec).cell, ready(spec), subject.artifact.sha256)
    fewer = replace(spec, images=99)
    for asked, named, what in (
        (fewer, id, subject),
        (spec, "another", subject),
        (spec, id, replace(subject, weights_sha256="others")),
        (spec, id, replace(subject, artifact=replace(subject.artifact, sha256="another's"))),
    ):
        with pytest.raises(CellsFailedError, match="a worker has other versions, test images or weights than the one"):
            shards.answers(asked, named, what, subject.artifact.path, Shard(0, 32))


@pytest.mark.usefixtures("faulty_backends")
def test_a_shard_that_fails_says_why(spec: RunSpec) -> None:
    spec = replace(spec, cells=(replace(spec.cells[0], backend="faulty-killed"),))
    subject = shards.subject(spec)
    id = run.identity(spec, fingerprint(), ready(spec).cell, ready(spec), subject.artifact.sha256)
    with pytest.raises(CellsFailedError, match=r"was killed by .* \(SIGKILL, phase accuracy\)"):
        shards.answers(spec, id, subject, subject.artifact.path, Shard(32, 64))


def test_promises_are_judged_once_all_shards_are_joined(spec: RunSpec, make_result: Callable[..., Result]) -> None:
    measured = make_result()
    result = replace(measured, measured=replace(measured.measured, accuracy=None), reasons={"energy": "no meter"})
    parts = [
        Answers(
            classes=4,
            session=(0, own),
            reference=(0, 1),
            labels=(0, 1),
            reason_without_top1=None,
            among_five=(),
            sum_errors=(0.5, 0.25),
            max_error=0.5,
        )
        for own in (1, 2)
    ]
    joined = shards.join(replace(spec, max_drop=20.0), result, parts)
    assert joined.measured.accuracy is not None and joined.measured.accuracy.top1 == 0.75
    assert joined.measured.latency == result.measured.latency
    assert joined.failure is not None and joined.failure.exit_code == 5
    assert joined.failure.cause.startswith("top-1 dropped by 25.00 points")
    assert joined.reasons == {"energy": "no meter", "accuracy.top5": "every answer is among the first five"}
    assert shards.join(replace(spec, max_drop=30.0), result, parts).failure is None
    effective = shards.join(replace(spec, require_effective=True), result, parts).failure
    assert effective == Failure(
        cause="not all of it ran in fp32: the backend does not tell what it executed",
        remedy="see `mbbench explain`, or leave out --require-effective",
        exit_code=5,
    )
