"""Fine-tuning on few images: enough steps, and the best state on images that are held out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from mbbench.spec import Preprocessing
from mbbench.weights.finetune import BestState, fine_tune, hold_out
from mbbench.weights.recipe import FineTuning, Progress

RECIPE = FineTuning(epochs=3, batch_size=32, learning_rate=1e-2, min_steps=0, shift=0.0)
PIXELS = Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


def shades(count: int = 160) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return 4x4 images of which each has its own shade, and labels: whether it is light."""
    values = np.random.default_rng(0).permutation(np.linspace(0, 255, count).astype(np.uint8))
    return np.tile(values[:, None, None, None], (1, 4, 4, 3)), (values > 127).astype(np.int64)


def network(weight: float = 0.0) -> nn.Sequential:
    """Return a network that calls an image light as far as `weight` is positive, dark as far as it is negative."""
    module = nn.Sequential(nn.BatchNorm2d(3, affine=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    linear = module[3]
    assert isinstance(linear, nn.Linear)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[-weight], [weight]]).expand(2, 3))
        linear.bias.zero_()
    return module


def weight_of(module: nn.Sequential) -> float:
    return float(module.state_dict()["3.weight"][1, 0])


def test_an_eighth_of_each_class_is_held_out() -> None:
    labels = np.repeat([0, 1, 2, 3], [80, 63, 7, 1])
    rows = hold_out(labels, seed=0)
    assert np.bincount(labels[rows], minlength=4).tolist() == [10, 7, 0, 0]
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert np.array_equal(rows, hold_out(labels, seed=0))
    assert not np.array_equal(rows, hold_out(labels, seed=1))


@pytest.mark.parametrize(("images", "held_out"), [(127, 0), (128, 16), (4096, 512), (10_000, 512)])
def test_at_least_16_and_at_most_512_images_are_held_out(images: int, held_out: int) -> None:
    assert len(hold_out(np.zeros(images, np.int64), seed=0)) == held_out


def test_training_never_sees_the_images_that_are_held_out() -> None:
    images, labels = shades()
    seen: set[int] = set()
    module = network()

    def record(_: nn.Module, arguments: tuple[torch.Tensor]) -> None:
        if module.training:
            seen.update((arguments[0][:, 0, 0, 0] * 0.25 * 255 + 127.5).round().int().tolist())

    module.register_forward_pre_hook(record)
    fine_tune(module, images, labels, PIXELS, replace(RECIPE, min_steps=60))
    shade = images[:, 0, 0, 0]
    held_out = hold_out(labels, seed=0)
    assert len(held_out) == 20
    assert seen == {*shade.tolist()} - {*shade[held_out].tolist()}


@pytest.mark.parametrize(
    ("images", "min_steps", "steps"),
    [
        (160, 0, 3 * 4),  # 140 images that are not held out: 4 batches, 3 epochs
        (160, 12, 3 * 4),
        (160, 13, 3 * 2 * 4),  # an epoch is two passes
        (160, 300, 3 * 25 * 4),
        (8, 300, 300),  # none held out, one batch
    ],
)
def test_few_images_are_passed_over_until_the_steps_are_enough(images: int, min_steps: int, steps: int) -> None:
    reported: list[Progress] = []
    recipe = replace(RECIPE, min_steps=min_steps)
    fine_tune(network(), *shades(images), PIXELS, recipe, on_progress=reported.append)
    assert [progress.step for progress in reported] == list(range(1, steps + 1))
    assert {progress.steps for progress in reported} == {steps}
    assert [progress.epoch for progress in reported] == [1 + 3 * step // steps for step in range(steps)]


def test_the_learning_rate_is_warmed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    step = torch.optim.AdamW.step

    def record(self: torch.optim.AdamW, *arguments: object) -> object:
        rates.append(self.param_groups[0]["lr"])
        return step(self, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", record)
    fine_tune(network(), *shades(), PIXELS, replace(RECIPE, min_steps=60))
    assert len(rates) == 60
    assert rates[0] == pytest.approx(RECIPE.learning_rate / 25)
    assert rates[17] == max(rates) == pytest.approx(RECIPE.learning_rate)
    assert rates[:18] == sorted(rates[:18])


def judge(images: int = 160) -> BestState:
    pixels, labels = shades(images)
    held_out = hold_out(labels, seed=0)
    return BestState(pixels, labels, held_out, np.setdiff1d(np.arange(images), held_out), PIXELS, RECIPE)


@pytest.mark.parametrize(
    ("weights", "kept"),
    [
        ((0.0, 0.5, 1.0, 0.7), 1.0),  # the smallest loss of the trained states
        ((2.0, 0.5), 0.5),  # the start is right as often
        ((2.0, -0.5, -1.0), 2.0),  # every trained state is wrong
        ((0.0, float("nan"), float("nan")), 0.0),  # training diverged
    ],
)
def test_the_best_state_is_kept_and_the_start_only_if_it_is_clearly_better(
    weights: tuple[float, ...], kept: float
) -> None:
    best = judge()
    for weight in weights:
        best.consider(network(weight))
    module = network()
    best.restore(module)
    assert weight_of(module) == pytest.approx(kept)


def test_batch_norm_is_estimated_before_the_start_is_judged() -> None:
    """With the statistics that the network comes with, every image is light: half of them would be wrong."""
    module = network(1.0)
    module[0].running_mean.fill_(-9.0)  # type: ignore[operator]
    best = judge()
    best.consider(module)
    assert module[0].running_mean.abs().max() < 0.2  # type: ignore[operator]
    right = best.state_dict()["start"]["right"]
    assert right.float().mean() >= 0.9


def test_training_that_diverges_gives_the_start_back() -> None:
    module = network(2.0)
    fine_tune(module, *shades(), PIXELS, replace(RECIPE, learning_rate=float("inf")))
    assert weight_of(module) == 2.0
    assert not module.training


def test_interrupted_fine_tuning_resumes_to_the_same_weights(tmp_path: Path) -> None:
    partial = tmp_path / "training.partial"
    recipe = replace(RECIPE, min_steps=24)

    def run(stop_at: int | None = None) -> tuple[dict[str, torch.Tensor], list[int]]:
        module, steps = network(0.1), list[int]()

        def on_progress(progress: Progress) -> None:
            steps.append(progress.step)
            if progress.step == stop_at:
                raise KeyboardInterrupt

        if stop_at is None:
            fine_tune(module, *shades(), PIXELS, recipe, on_progress=on_progress, partial=partial)
        else:
            with pytest.raises(KeyboardInterrupt):
                fine_tune(module, *shades(), PIXELS, recipe, on_progress=on_progress, partial=partial)
        return module.state_dict(), steps

    uninterrupted, _ = run()
    assert not partial.exists()
    run(stop_at=20)  # in the third epoch of 8 steps
    saved = torch.load(partial, weights_only=True)["best"]
    assert saved["start"]["state"]["3.weight"][1, 0] == pytest.approx(0.1)
    assert saved["trained"] is not None
    resumed, steps = run()
    assert steps == list(range(17, 25))
    assert all(torch.equal(uninterrupted[name], resumed[name]) for name in uninterrupted)
