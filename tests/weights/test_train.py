from __future__ import annotations

import os
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mbbench import data, weights
from mbbench.artifacts import reference
from mbbench.data.feed import to_float
from mbbench.errors import UsageError
from mbbench.models import build, default_preprocessing, load_parameters
from mbbench.spec import ModelSpec
from mbbench.weights.recipe import Progress, Recipe
from mbbench.weights.train import train

SPEC = ModelSpec(alpha=0.25, resolution=32, classes=2)
RECIPE = Recipe(epochs=2, batch_size=16)


def shades(count: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return alternating images of dark noise (label 0) and light noise (label 1)."""
    labels = np.arange(count) % 2
    noise = np.random.default_rng(0).integers(0, 120, (count, 32, 32, 3))
    return (noise + 100 * labels[:, None, None, None]).astype(np.uint8), labels.astype(np.int64)


def test_training_is_deterministic() -> None:
    images, labels = shades(40)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = train(SPEC, images, labels, RECIPE)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    second = train(SPEC, images, labels, RECIPE)
    assert all(torch.equal(first[name], second[name]) for name in first)
    reseeded = train(SPEC, images, labels, replace(RECIPE, seed=1))
    assert not torch.equal(first["classifier.weight"], reseeded["classifier.weight"])


@pytest.mark.parametrize("epochs", [10, 40])
def test_training_learns_and_batch_norm_matches_the_final_weights(epochs: int) -> None:
    """With the running averages of training, the network predicts class 1 for every image after 40 steps: 50 % top-1.

    Rounding differs between chips and numbers of threads, which has a large effect after 40 steps: four seeds reached
    64 to 97 % on one thread and 80 to 94 % on two, with means of 84 and 88 %.
    """
    images, labels = shades(64)
    accuracies = []
    for seed in {10: range(4), 40: range(1)}[epochs]:
        module = build(SPEC)
        recipe = Recipe(epochs=epochs, batch_size=16, seed=seed)
        load_parameters(module, train(SPEC, images, labels, recipe), "trained")
        with torch.inference_mode():
            logits = module(torch.from_numpy(to_float(images, default_preprocessing(SPEC.family))))
        accuracies.append((logits.argmax(1).numpy() == labels).mean())
    assert sum(accuracies) / len(accuracies) >= {10: 0.75, 40: 1.0}[epochs]


def test_the_spin_count_reaches_openmp_and_not_child_processes() -> None:
    code = (
        "import os; from mbbench.weights import train; train._import_torch(); print(os.environ.get('GOMP_SPINCOUNT'))"
    )
    command = [sys.executable, "-c", code]
    child = subprocess.run(
        command, env=os.environ | {"OMP_DISPLAY_ENV": "VERBOSE"}, capture_output=True, text=True, check=True
    )
    assert child.stdout == "None\n"
    if platform.system() == "Linux":
        assert "GOMP_SPINCOUNT = '1000'" in child.stderr


def test_progress_is_reported_at_every_step() -> None:
    images, labels = shades(40)
    reported: list[Progress] = []
    train(SPEC, images, labels, RECIPE, reported.append)
    assert [(progress.step, progress.steps, progress.epoch, progress.epochs) for progress in reported] == [
        (1, 4, 1, 2),
        (2, 4, 1, 2),
        (3, 4, 2, 2),
        (4, 4, 2, 2),
    ]
    assert all(0 < progress.loss < 10 for progress in reported)


def test_the_state_dict_is_detached_and_contiguous() -> None:
    images, labels = shades(20)
    state = train(SPEC, images, labels, RECIPE)
    assert not any(tensor.requires_grad for tensor in state.values())
    assert all(tensor.is_contiguous() for tensor in state.values())
    assert {int(tensor) for name, tensor in state.items() if name.endswith("num_batches_tracked")} == {1}


@pytest.mark.parametrize("count", [2, 3, 15, 17])
def test_few_images_are_enough(count: int) -> None:
    images, labels = shades(count)
    assert all(tensor.isfinite().all() for tensor in train(SPEC, images, labels, RECIPE).values())


def test_one_image_is_refused() -> None:
    images, labels = shades(1)
    with pytest.raises(UsageError, match=r"^training needs at least 2 images: 1; give more"):
        train(SPEC, images, labels, RECIPE)


def test_zero_epochs_are_refused() -> None:
    with pytest.raises(UsageError, match=r"^--epochs is out of range: 0; give 1 to 10000$"):
        Recipe(epochs=0)


@pytest.mark.slow
@pytest.mark.parametrize(("alpha", "resolution", "min_top1"), [(0.5, 128, 0.97), (0.25, 96, 0.95)])
def test_the_default_recipe_converges_on_digits(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, alpha: float, resolution: int, min_top1: float
) -> None:
    monkeypatch.setenv("MBBENCH_CACHE", str(tmp_path))
    spec = ModelSpec(alpha=alpha, resolution=resolution, classes=10)
    trained = weights.trained(spec, data.load_split("digits", (resolution, resolution), "train"), Recipe())
    assert reference.top1(trained, data.load_split("digits", (resolution, resolution), "test")) >= min_top1
