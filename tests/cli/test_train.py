"""What `mbbench compress` measures for --max-latency, and the images that it fine-tunes on."""

from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from mbbench import run, weights
from mbbench.artifacts import reference
from mbbench.cli import probe, train
from mbbench.cli.progress import Display
from mbbench.compress import pipeline
from mbbench.data import Dataset
from mbbench.errors import BackendError, RequirementError, UsageError
from mbbench.measure import ceilings
from mbbench.measure.jobs.cell import Job, Report
from mbbench.measure.process import run_in_child
from mbbench.profile import Profile
from mbbench.spec import ModelSpec, Precision, Preprocessing, RunSpec
from mbbench.weights import Weights
from mbbench.weights.recipe import FineTuning, Recipe

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
        latency_ms = probe.latency_ms(profile, display, SPEC)
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
        probe.latency_ms(profile, display, SPEC)


def test_compression_has_the_preprocessing_and_the_labels_of_the_checkpoint(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, shade in (("cat", 10), ("dog", 200)):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for i in range(10):
            Image.new("RGB", (40, 40), (shade, 0, i)).save(tmp_path / "pets" / name / f"{i}.png")
    (tmp_path / "l.csv").write_text("cat,1\ndog,0\n")
    checkpoint = weights.random(replace(SPEC, classes=2)).path
    received: list[Dataset] = []
    monkeypatch.setattr(pipeline, "compress", lambda start, images, *_: received.append(images) or start)  # type: ignore[func-returns-value]
    options: dict[str, Any] = {"alpha": 0.25, "res": 32, "data": str(tmp_path / "pets"), "prune": 50.0}
    train.compress(
        **options, weights=str(checkpoint), mean="0.1,0.2,0.3", channels="bgr", labels=str(tmp_path / "l.csv")
    )
    (images,) = received
    assert images.preprocessing == Preprocessing(mean=(0.1, 0.2, 0.3), channels="bgr")
    assert images.arrays()[1].tolist() == [1] * 8 + [0] * 8
    with pytest.raises(UsageError, match="--labels requires --weights"):
        train.compress(**options, labels=str(tmp_path / "l.csv"))


def test_fine_tuning_has_the_rate_of_training_and_a_floor_of_steps() -> None:
    request = train._build_request(0.5, None, None, qat=True, epochs=3)
    assert request.recipe == FineTuning(epochs=3, learning_rate=Recipe().learning_rate, min_steps=500)
    assert (request.qat_recipe.epochs, request.qat_recipe.min_steps) == (1, 100)
    distilled = train._build_request(None, None, weights.random(SPEC), qat=False, epochs=5).recipe
    assert distilled == FineTuning(epochs=5, min_steps=500, distillation=0.7)


def test_a_network_that_became_worse_is_written_and_ends_with_exit_code_5(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = weights.random(replace(SPEC, alpha=0.5))
    start, compressed = (weights.random(replace(SPEC, alpha=alpha)) for alpha in (0.25, 0.75))
    shares = {start.path: 0.9, compressed.path: 0.4, teacher.path: 0.5}

    def correct(network: Weights, test: Dataset) -> Any:
        return np.arange(test.count) < round(shares[network.path] * test.count)

    monkeypatch.setattr(reference, "correct", correct)
    monkeypatch.setattr(pipeline, "compress", lambda *_: compressed)
    options: dict[str, Any] = {"alpha": 0.25, "res": 32, "weights": str(start.path), "prune": 50.0}
    with pytest.raises(RequirementError, match=r"^top-1 is worse than before compression: -49\.9 points .*--prune"):
        train.compress(**options, teacher=str(teacher.path), teacher_alpha=0.5)
    written, shown = capsys.readouterr()
    assert written == f"{compressed.path}\n"
    assert shown.splitlines()[-2:] == [
        "teacher 0.5 MobileNet-32: top-1 50.1 % [45.0, 55.3] on the 359 test images of digits",
        "0.75 MobileNet-32: 0.835 M -> 6.63 M Mult-Adds, top-1 90.0 % [86.4, 92.7] -> 40.1 % [35.2, 45.3],"
        " -49.9 points [-54.8, -44.4] on the 359 test images of digits",
    ]
    shares[compressed.path] = 0.895
    train.compress(**options)
    assert "teacher" not in capsys.readouterr().err
