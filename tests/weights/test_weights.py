from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from mbbench import data, weights
from mbbench.artifacts import reference
from mbbench.errors import UsageError
from mbbench.models import build
from mbbench.spec import ModelSpec, Preprocessing, content_key
from mbbench.weights import checkpoint
from mbbench.weights.recipe import Progress, Recipe

SPEC = ModelSpec(alpha=0.25, resolution=32, classes=10)
RECIPE = Recipe(epochs=1, batch_size=64)


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("MBBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "weights"


def digits(limit: int | None = 128) -> data.Dataset:
    return data.load_split("digits", (32, 32), "train", limit=limit)


def no_data() -> data.Dataset:
    pytest.fail("training data was requested")


def test_trained_weights_are_cached(folder: Path) -> None:
    steps: list[Progress] = []
    first = weights.resolve(None, SPEC, digits, RECIPE, steps.append)
    assert len(steps) == 2
    mtime_ns = first.path.stat().st_mtime_ns
    assert weights.resolve(None, SPEC, digits, RECIPE, steps.append) == first
    assert len(steps) == 2
    assert first.path.stat().st_mtime_ns == mtime_ns
    assert (first.info.origin, first.info.trained_on) == ("trained", digits().fingerprint)
    assert first.path == folder / f"{first.info.key}.safetensors"
    assert list(folder.iterdir()) == [first.path]


def test_trained_weights_record_their_spec_recipe_and_data(folder: Path) -> None:
    resolved = weights.trained(SPEC, digits(), RECIPE)
    with safe_open(resolved.path, "numpy") as file:
        recorded = file.metadata()
    assert json.loads(recorded["spec"]) == {
        "family": "mobilenet_v1",
        "alpha": 0.25,
        "resolution": 32,
        "classes": 10,
        "variant": "standard",
        "padding": "symmetric",
        "widths": None,
        "name": "",
        "sha256": "",
        "width": None,
    }
    recipe = json.loads(recorded["recipe"])
    assert (recipe["epochs"], recipe["batch_size"], recipe["seed"]) == (1, 64, 0)
    assert recorded["data"] == digits().fingerprint
    assert (recorded["mbbench"], recorded["torch"]) == (metadata.version("mbbench"), metadata.version("torch"))


def test_the_key_depends_on_spec_data_and_recipe() -> None:
    keys = {
        weights.trained(spec, images, recipe).info.key
        for spec, images, recipe in (
            (SPEC, digits(), RECIPE),
            (replace(SPEC, alpha=0.5), digits(), RECIPE),
            (SPEC, digits(127), RECIPE),
            (SPEC, digits(), replace(RECIPE, seed=1)),
        )
    }
    assert len(keys) == 4


def test_damaged_weights_are_retrained() -> None:
    resolved = weights.trained(SPEC, digits(), RECIPE)
    mapped = checkpoint.read_state(resolved.path)  # its tensors are views of the file, which is damaged below
    state = {name: tensor.clone() for name, tensor in mapped.items()}
    os.truncate(resolved.path, resolved.path.stat().st_size - 10)
    assert weights.trained(SPEC, digits(), RECIPE) == resolved
    again = checkpoint.read_state(resolved.path)
    assert all(torch.equal(again[name], tensor) for name, tensor in state.items())


def test_cached_weights_do_not_load_torch() -> None:
    weights.trained(SPEC, digits(), RECIPE)
    weights.random(SPEC)
    code = (
        "import sys; from mbbench import data, weights; from mbbench.spec import ModelSpec;"
        "from mbbench.weights.recipe import Recipe; spec = ModelSpec(alpha=0.25, resolution=32, classes=10);"
        "digits = data.load_split('digits', (32, 32), 'train', limit=128);"
        "weights.trained(spec, digits, Recipe(epochs=1, batch_size=64));"
        "weights.resolve('random', spec, None, Recipe());"
        "print([name for name in ('torch', 'PIL', 'sklearn') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_build_loads_the_stored_weights() -> None:
    resolved = weights.trained(SPEC, digits(), RECIPE)
    module, state = resolved.build(), checkpoint.read_state(resolved.path)
    assert not module.training
    assert all(torch.equal(tensor, state[name]) for name, tensor in module.state_dict().items())


def test_random_weights_are_seeded_and_cached() -> None:
    first = weights.resolve("random", SPEC, no_data, RECIPE)
    state = checkpoint.read_state(first.path)
    first.path.unlink()
    assert weights.random(SPEC) == first
    again = checkpoint.read_state(first.path)
    assert all(torch.equal(again[name], tensor) for name, tensor in state.items())
    assert (first.info.origin, first.info.trained_on) == ("random", None)
    kernel = first.build().state_dict()["classifier.weight"]
    assert kernel.std().item() == pytest.approx((2 / kernel.shape[1]) ** 0.5, rel=0.05)  # He et al. 2015, fan-in


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_the_number_of_classes_is_that_of_the_file(tmp_path: Path, suffix: str) -> None:
    state = build(replace(SPEC, classes=3)).state_dict()
    path = tmp_path / f"mine{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": state}, path)
    else:
        checkpoint.save(path, state, {})
    resolved = weights.resolve(str(path), SPEC, no_data, RECIPE)
    assert resolved.spec == replace(SPEC, classes=3)
    assert (resolved.path, resolved.info.origin, resolved.info.trained_on) == (path, "file", None)
    assert resolved.info.key == hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    assert torch.equal(resolved.build().state_dict()["classifier.weight"], state["classifier.weight"])


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "wide.safetensors"
    checkpoint.save(path, build(replace(SPEC, alpha=0.5)).state_dict(), {})
    with pytest.raises(UsageError) as caught:
        weights.resolve(str(path), SPEC, no_data, RECIPE)
    assert str(caught.value) == f"{path} holds mbbench's MobileNetV1 of alpha 0.5; give --alpha 0.5"
    state = build(SPEC).state_dict()
    checkpoint.save(path, state | {"stem.conv.weight": torch.ones(8, 3, 5, 5)}, {})
    with pytest.raises(UsageError) as caught:
        weights.resolve(str(path), SPEC, no_data, RECIPE)
    assert str(caught.value) == (
        f"stem.conv.weight in {path} has the wrong shape: (8, 3, 5, 5) instead of (8, 3, 3, 3);"
        " give a checkpoint that matches --model, --alpha and --variant"
    )


def test_a_moving_average_is_what_is_loaded_and_keyed(tmp_path: Path) -> None:
    """Weights of the last step lie next to it; the file's digest alone is their key."""
    path = tmp_path / "both.pth"
    torch.manual_seed(0)
    last, average = build(SPEC).state_dict(), build(SPEC).state_dict()
    torch.save({"state_dict": last, "state_dict_ema": average}, path)
    resolved = weights.resolve(str(path), SPEC, no_data, RECIPE)
    assert resolved.info.notes == ("read from state_dict_ema instead of state_dict",)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert resolved.info.key == content_key("averaged", digest) != digest[:16]
    assert torch.equal(resolved.build().state_dict()["classifier.weight"], average["classifier.weight"])


def test_a_wrapped_checkpoint_in_half_precision_is_read(tmp_path: Path) -> None:
    state = build(SPEC).half().state_dict()
    torch.save({"model": {f"module._orig_mod.{name}": tensor for name, tensor in state.items()}}, tmp_path / "x.bin")
    resolved = weights.resolve(str(tmp_path / "x.bin"), SPEC, no_data, RECIPE)
    assert resolved.info.notes == (
        "read from model", "prefix module._orig_mod. removed", "float16 widened to float32",
    )  # fmt: skip
    loaded = resolved.build().state_dict()
    assert loaded["classifier.weight"].dtype == torch.float32
    assert torch.equal(loaded["classifier.weight"], state["classifier.weight"].float())


def test_an_error_names_the_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read the checkpoint .*absent\.pth \(No such file or directory\)"):
        weights.resolve(str(tmp_path / "absent.pth"), SPEC, no_data, RECIPE)


def test_other_families_and_other_classes_are_not_trained() -> None:
    with pytest.raises(UsageError, match=r"^VGG16-32 has no default weights"):
        weights.trained(ModelSpec("vgg16", resolution=32, classes=10), digits(), RECIPE)
    with pytest.raises(UsageError, match=r"^the data has 10 classes but the model has 3"):
        weights.trained(replace(SPEC, classes=3), digits(), RECIPE)


def test_top1_is_the_share_of_correct_predictions() -> None:
    """The network always predicts 3, so its top-1 is the share of threes."""
    state = build(SPEC).state_dict()
    state["classifier.weight"].zero_()
    state["classifier.bias"].copy_(torch.eye(10)[3])
    checkpoint.save(Path(os.environ["MBBENCH_CACHE"]) / "three.safetensors", state, {})
    resolved = weights.resolve(str(Path(os.environ["MBBENCH_CACHE"]) / "three.safetensors"), SPEC, no_data, RECIPE)
    test = data.load_split("digits", (32, 32), "test")
    assert reference.top1(resolved, test) == (test.arrays()[1] == 3).mean() == 37 / 359


def test_weights_trained_with_another_preprocessing_are_others() -> None:
    bgr = Preprocessing(mean=(0.1, 0.2, 0.3), channels="bgr")
    usual, special, default = (
        weights.trained(
            SPEC, data.load_split("digits", (32, 32), "train", limit=64, preprocessing=preprocessing), RECIPE
        )
        for preprocessing in (None, bgr, Preprocessing())
    )
    assert usual == default
    assert special.info.key != usual.info.key
    assert special.sha256() != usual.sha256()
