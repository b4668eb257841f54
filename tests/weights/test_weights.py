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
from mbbench.spec import ModelSpec
from mbbench.weights import checkpoint
from mbbench.weights.recipe import Progress, Recipe

SPEC = ModelSpec(alpha=0.25, resolution=32, classes=10)
RECIPE = Recipe(epochs=1, batch_size=64)


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("MBBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "weights"


def digits(limit: int | None = 128) -> data.Dataset:
    return data.load("digits", 32, "train", limit=limit)


def none() -> data.Dataset:
    pytest.fail("no training data is needed")


def test_training_happens_once(folder: Path) -> None:
    steps: list[Progress] = []
    first = weights.resolve(None, SPEC, digits, RECIPE, steps.append)
    assert len(steps) == 2
    stamp = first.path.stat().st_mtime_ns
    assert weights.resolve(None, SPEC, digits, RECIPE, steps.append) == first
    assert len(steps) == 2
    assert first.path.stat().st_mtime_ns == stamp
    assert (first.info.origin, first.info.trained_on) == ("trained", digits().fingerprint)
    assert first.path == folder / f"{first.info.key}.safetensors"
    assert list(folder.iterdir()) == [first.path]


def test_what_was_trained_says_how(folder: Path) -> None:
    found = weights.trained(SPEC, digits(), RECIPE)
    with safe_open(found.path, "numpy") as file:
        facts = file.metadata()
    assert json.loads(facts["spec"]) == {
        "family": "mobilenet_v1",
        "alpha": 0.25,
        "resolution": 32,
        "classes": 10,
        "variant": "standard",
        "padding": "symmetric",
        "widths": None,
    }
    recipe = json.loads(facts["recipe"])
    assert (recipe["epochs"], recipe["batch_size"], recipe["seed"]) == (1, 64, 0)
    assert facts["data"] == digits().fingerprint
    assert (facts["mbbench"], facts["torch"]) == (metadata.version("mbbench"), metadata.version("torch"))


def test_the_key_follows_what_decides_the_weights() -> None:
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


def test_damaged_weights_are_trained_again() -> None:
    found = weights.trained(SPEC, digits(), RECIPE)
    state = {name: tensor.clone() for name, tensor in checkpoint.load(found.path).items()}  # loaded ones map the file
    os.truncate(found.path, found.path.stat().st_size - 10)
    assert weights.trained(SPEC, digits(), RECIPE) == found
    again = checkpoint.load(found.path)
    assert all(torch.equal(again[name], tensor) for name, tensor in state.items())


def test_warm_weights_need_no_torch() -> None:
    weights.trained(SPEC, digits(), RECIPE)
    weights.random(SPEC)
    code = (
        "import sys; from mbbench import data, weights; from mbbench.spec import ModelSpec;"
        "from mbbench.weights.recipe import Recipe; spec = ModelSpec(alpha=0.25, resolution=32, classes=10);"
        "weights.trained(spec, data.load('digits', 32, 'train', limit=128), Recipe(epochs=1, batch_size=64));"
        "weights.resolve('random', spec, None, Recipe());"
        "print([name for name in ('torch', 'PIL', 'sklearn') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_build_gives_the_stored_network() -> None:
    found = weights.trained(SPEC, digits(), RECIPE)
    module, state = found.build(), checkpoint.load(found.path)
    assert not module.training
    assert all(torch.equal(tensor, state[name]) for name, tensor in module.state_dict().items())


def test_random_weights_are_seeded_and_kept_in_a_file() -> None:
    first = weights.resolve("random", SPEC, none, RECIPE)
    state = checkpoint.load(first.path)
    first.path.unlink()
    assert weights.random(SPEC) == first
    again = checkpoint.load(first.path)
    assert all(torch.equal(again[name], tensor) for name, tensor in state.items())
    assert (first.info.origin, first.info.trained_on) == ("random", None)
    kernel = first.build().state_dict()["classifier.weight"]
    assert kernel.std().item() == pytest.approx((2 / kernel.shape[1]) ** 0.5, rel=0.05)  # He et al. 2015, fan-in


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_file_brings_its_number_of_classes(tmp_path: Path, suffix: str) -> None:
    state = build(replace(SPEC, classes=3)).state_dict()
    path = tmp_path / f"mine{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": state}, path)
    else:
        checkpoint.save(path, state, {})
    found = weights.resolve(str(path), SPEC, none, RECIPE)
    assert found.spec == replace(SPEC, classes=3)
    assert (found.path, found.info.origin, found.info.trained_on) == (path, "file", None)
    assert found.info.key == hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    assert torch.equal(found.build().state_dict()["classifier.weight"], state["classifier.weight"])


def test_a_file_of_another_architecture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "wide.safetensors"
    checkpoint.save(path, build(replace(SPEC, alpha=0.5)).state_dict(), {})
    with pytest.raises(UsageError, match=r"wide\.safetensors has .* of shape .* the model wants"):
        weights.resolve(str(path), SPEC, none, RECIPE).build()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read the checkpoint .*absent\.pth \(No such file or directory\)"):
        weights.resolve(str(tmp_path / "absent.pth"), SPEC, none, RECIPE)


def test_what_cannot_be_trained() -> None:
    with pytest.raises(UsageError, match=r"^VGG16-32 has no embedded weights"):
        weights.trained(ModelSpec("vgg16", resolution=32, classes=10), digits(), RECIPE)
    with pytest.raises(UsageError, match=r"^the data has 10 classes, the model 3"):
        weights.trained(replace(SPEC, classes=3), digits(), RECIPE)


def test_top1_counts_right_answers() -> None:
    """Of weights that always answer 3, as many answers are right as there are threes."""
    state = build(SPEC).state_dict()
    state["classifier.weight"].zero_()
    state["classifier.bias"].copy_(torch.eye(10)[3])
    checkpoint.save(Path(os.environ["MBBENCH_CACHE"]) / "three.safetensors", state, {})
    found = weights.resolve(str(Path(os.environ["MBBENCH_CACHE"]) / "three.safetensors"), SPEC, none, RECIPE)
    test = data.load("digits", 32, "test")
    assert reference.top1(found, test) == (test.arrays()[1] == 3).mean() == 37 / 359
