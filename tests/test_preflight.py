"""What a run and `--plan` refuse before any work."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mbbench import plan, preflight, weights
from mbbench.errors import BackendError, UsageError
from mbbench.models import memory
from mbbench.profile import Profile
from mbbench.spec import ModelSpec, Settings

SMALL: dict[str, Any] = {"alpha": (0.25,), "res": (32,), "backend": ("onnxruntime",), "weights": "random"}


def refusal(profile: Profile, results: Path | None = None, **options: Any) -> str:
    with pytest.raises((UsageError, BackendError)) as caught:
        preflight.require_measurable(plan.plan(profile), results, **options)
    return str(caught.value)


def test_a_possible_run_is_not_refused(tmp_path: Path) -> None:
    preflight.require_measurable(plan.plan(Profile(**SMALL)), tmp_path / "new" / "r.jsonl")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"backend": ("onnx",)}, "unknown backend: 'onnx'; did you mean onnxruntime? choose an installed backend ("),
        ({"backend": ("onnxruntime", "openvin")}, "unknown backend: 'openvin'; did you mean openvino? choose an inst"),
        ({"device": "gpu"}, "unknown device: 'gpu'; choose one of cpu"),
        ({"device": "cpus"}, "unknown device: 'cpus'; did you mean cpu? choose one of cpu"),
        ({"precision": ("bf16",)}, "onnxruntime has no native bf16 on cpu here and would only emulate it"),
        ({"data": "no-such"}, "there is no data folder 'no-such'; give a folder of images"),
        ({"data": "random"}, "random is not a data set, but a value of --calibration"),
        ({"data": "~no-such-user/photos"}, "cannot find '~no-such-user/photos'"),
        ({"data": "x" * 5000}, "cannot read xxx"),
        ({"calibration": "no-such"}, "there is no data folder 'no-such'"),
        ({"weights": "no-such.pt"}, "cannot read the checkpoint no-such.pt (No such file or directory)"),
        ({"weights": "keras:no-such.h5"}, "cannot read the checkpoint no-such.h5 (No such file or directory)"),
        ({"weights": "~no-such-user/mine.pt"}, "cannot find '~no-such-user/mine.pt'"),
        ({"weights": "imagenet"}, "cannot download MobileNetV1's weights"),
        ({"weights": "/"}, "/ is a folder, not a checkpoint; give the checkpoint file in it"),
        ({"weights": "x.pt", "labels": "no-such.csv"}, "cannot read no-such.csv (No such file or directory)"),
        ({"model": ("alexnet",), "res": (63,), "alpha": (1.0,), "weights": None}, "AlexNet-63 has no default weights"),
        (
            {"model": ("alexnet",), "res": (63,), "alpha": (1.0,), "weights": "imagenet"},
            "no published weights of AlexNet-63 are known; give --weights torchvision:FILE",
        ),
        ({"settings": Settings(threads=4000)}, "--threads is more than the number of available CPUs, "),
    ],
)
def test_what_a_run_would_refuse_is_refused_before_any_work(fields: dict[str, Any], message: str) -> None:
    assert refusal(Profile(**SMALL | fields)).startswith(message)


def test_a_folder_of_images_is_looked_at(tmp_path: Path) -> None:
    assert "has no folders of images" in refusal(Profile(**SMALL | {"data": str(tmp_path)}))
    assert "has no file train-images" in refusal(Profile(**SMALL | {"data": f"fashion-mnist:{tmp_path}"}))
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "1.png")
    preflight.require_inputs(plan.plan(Profile(**SMALL | {"data": str(tmp_path)})))


def test_one_backend_of_several_may_be_unavailable() -> None:
    preflight.require_backends(plan.plan(Profile(**SMALL | {"precision": ("fp32", "bf16")})))
    preflight.require_backends(plan.plan(Profile(**SMALL | {"backend": ("executorch", "onnxruntime")})))


def test_a_checkpoint_of_another_width_is_refused_by_its_metadata(tmp_path: Path) -> None:
    path = weights.random(ModelSpec(alpha=0.25, resolution=32, classes=10)).path
    preflight.require_inputs(plan.plan(Profile(**SMALL | {"weights": str(path)})))
    several = Profile(**SMALL | {"weights": str(path), "alpha": (0.25, 0.5)})
    assert refusal(several) == (
        f"{path} holds a MobileNet of alpha 0.25, variant standard; give --alpha 0.25 --variant standard"
    )
    (tmp_path / "mine.safetensors").write_text("no tensors")
    assert "is a text file that starts with 'no tensors'" in refusal(
        Profile(**SMALL | {"weights": str(tmp_path / "mine.safetensors")})
    )


def test_labels_are_read(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("cat\n")
    message = refusal(Profile(**SMALL | {"weights": "x.pt", "labels": str(tmp_path / "l.csv")}))
    assert "l.csv does not map folders to outputs (row 1 has 1 fields instead of 2); write a CSV file" in message


def test_an_exported_file_needs_no_data_and_no_weights() -> None:
    spec = plan.plan(Profile(**SMALL | {"data": "no-such", "weights": "no-such.pt"}))
    preflight.require_measurable(spec, own_images=True)


def test_what_does_not_fit_into_the_memory_is_refused_by_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ModelSpec(alpha=0.25, resolution=32)
    per_image = 3 * 32 * 32 * 4 + (8 + 16) * 16 * 16 * 4
    free = 50_000 * per_image + 10_000_000
    monkeypatch.setattr(preflight, "available_memory_bytes", lambda: free)
    spec = plan.plan(Profile(**SMALL))
    session = memory.weight_bytes(model)
    most = (free - session) // per_image

    def settings(**values: Any) -> Any:
        return replace(spec, settings=Settings(**values))

    preflight.require_memory(settings(batch=most))
    with pytest.raises(UsageError) as caught:
        preflight.require_memory(settings(batch=most + 1))
    assert str(caught.value) == (
        f"--batch {most + 1} does not fit into the memory with 0.25 MobileNet-32: at least 1.85 GB are needed,"
        f" 1.85 GB are available; give at most {most}"
    )
    with pytest.raises(UsageError, match=rf"^bulk_batch {most + 1} does not fit .*; give at most {most}$"):
        preflight.require_memory(settings(bulk_batch=most + 1))
    most = (free - session) // ((8 + 16) * 16 * 16 * 4 * 1000)
    preflight.require_memory(settings(streams=most, batch=1000, scenarios=("server",)))
    preflight.require_memory(settings(streams=most + 1, batch=1000))  # of scenarios that are not run
    with pytest.raises(UsageError, match=rf"^--streams {most + 1} does not fit .*; give at most {most}$"):
        preflight.require_memory(settings(streams=most + 1, batch=1000, scenarios=("server",)))
    on_gpu = replace(spec, cells=(replace(spec.cells[0], device="cuda:0"),))
    preflight.require_memory(replace(on_gpu, settings=Settings(batch=100_000)))  # it has memory of its own


def test_the_largest_network_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "available_memory_bytes", lambda: 40_000_000)
    with pytest.raises(UsageError, match=r"with 1.0 MobileNet-256: "):
        preflight.require_memory(plan.plan(Profile(**SMALL | {"alpha": (1.0, 0.25), "res": (32, 256, 128)})))


def test_training_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ModelSpec(resolution=2048)
    needed = memory.training_bytes(model, 32)
    monkeypatch.setattr(preflight, "available_memory_bytes", lambda: needed)
    preflight.require_trainable("digits", model)
    monkeypatch.setattr(preflight, "available_memory_bytes", lambda: needed - 1)
    message = r"^training on 32 images a step does not fit into the memory with 1.0 MobileNet-2048: at least 108 GB"
    with pytest.raises(UsageError, match=message):
        preflight.require_trainable("digits", model)
    with pytest.raises(UsageError, match=message):
        preflight.require_memory(plan.plan(Profile(res=(2048,))))


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("file/r.jsonl", "Not a directory"),
        ("folder", "it is a folder, not a file"),
        ("x" * 300, "File name too long"),
    ],
)
def test_results_that_cannot_be_written_are_refused_without_writing(tmp_path: Path, name: str, cause: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    assert refusal(Profile(**SMALL), tmp_path / name) == (
        f"cannot write {tmp_path / name} ({cause}); choose another file with --results"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
