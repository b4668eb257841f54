"""The stages of `mbbench compress` on a few digits, with short training."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mbbench import data, weights
from mbbench.compress.pipeline import Request, compress
from mbbench.data.feed import to_float
from mbbench.errors import UsageError
from mbbench.models import build, default_preprocessing
from mbbench.models.cost import cost_of
from mbbench.spec import ModelSpec
from mbbench.weights.recipe import FineTuning, Progress, Recipe
from mbbench.weights.train import _distilled, fit

SPEC = ModelSpec(alpha=0.25, resolution=32, classes=10)
RECIPE = FineTuning(epochs=2, batch_size=64, learning_rate=1e-3, min_steps=9)


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> data.Dataset:
    monkeypatch.setenv("MBBENCH_CACHE", str(tmp_path))
    return data.load_split("digits", (32, 32), "train", limit=200)


def request(mult_adds: float | None = None, **stages: object) -> Request:
    return Request(mult_adds=mult_adds, recipe=RECIPE, qat_recipe=RECIPE, **stages)  # type: ignore[arg-type]


def no_latency(spec: ModelSpec) -> float:
    pytest.fail("a latency was measured without a latency budget")


def test_every_stage_runs_once_and_its_checkpoint_records_its_widths(train: data.Dataset) -> None:
    start = weights.random(SPEC)
    steps: list[Progress] = []
    compressed = compress(start, train, request(0.6, qat=True), no_latency, steps.append)
    assert len(steps) == 2 * 2 * 3 * 2  # stages, epochs, passes, batches of the 183 images that are not held out
    assert cost_of(compressed.spec).mult_adds <= 0.6 * cost_of(SPEC).mult_adds
    loaded = weights.resolve(str(compressed.path), SPEC, lambda: train, Recipe())
    assert loaded.spec == compressed.spec
    compressed.build()(torch.zeros(1, 3, 32, 32))
    assert compress(start, train, request(0.6, qat=True), no_latency, steps.append) == compressed
    assert len(steps) == 24


def test_a_latency_budget_is_met_with_the_most_mult_adds(train: data.Dataset) -> None:
    measured: list[int] = []

    def latency(spec: ModelSpec) -> float:
        measured.append(cost_of(spec).mult_adds)
        return measured[-1] / cost_of(SPEC).mult_adds

    compressed = compress(weights.random(SPEC), train, request(max_latency_ms=0.7), latency, lambda _: None)
    assert 0.6 < cost_of(compressed.spec).mult_adds / cost_of(SPEC).mult_adds <= 0.7
    assert len(measured) == 1 + 5  # the network itself, and the bisection
    with pytest.raises(UsageError, match=r"no pruned .* has a median latency of at most 0\.001 ms here"):
        compress(weights.random(SPEC), train, request(max_latency_ms=0.001), lambda _: 1.0, lambda _: None)


def test_a_request_without_a_stage_and_weights_of_other_classes_are_refused(train: data.Dataset) -> None:
    with pytest.raises(UsageError, match="nothing to do: no compression was chosen"):
        compress(weights.random(SPEC), train, request(), no_latency, lambda _: None)
    other = weights.random(ModelSpec(alpha=0.25, resolution=32, classes=7))
    with pytest.raises(UsageError, match="the weights have 7 classes, the data has 10"):
        compress(other, train, request(0.5), no_latency, lambda _: None)


def pixels() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return random.integers(0, 256, (96, 32, 32, 3), np.uint8), np.arange(96) % 10


def test_distillation_brings_a_student_closer_to_its_teacher() -> None:
    teacher = weights.random(ModelSpec(alpha=0.5, resolution=32, classes=10)).build()
    images, _ = pixels()
    inputs = torch.from_numpy(to_float(images, default_preprocessing("mobilenet_v1")))
    with torch.inference_mode():
        labels = teacher(inputs).argmax(1).numpy()  # it counts where it is right

    def distance(share: float) -> float:
        torch.manual_seed(0)
        student = build(SPEC)
        recipe = Recipe(epochs=8, batch_size=32, learning_rate=3e-3, distillation=share, shift=0.0)
        fit(student, images, labels, default_preprocessing("mobilenet_v1"), recipe, teacher=teacher)
        with torch.inference_mode():
            return float((student(inputs).softmax(1) - teacher(inputs).softmax(1)).abs().mean())

    assert distance(1.0) < distance(0.0)


def test_a_teacher_counts_only_where_it_is_right() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0], [2.0, 0.0, -1.0]])
    answers = torch.tensor([[0.0, 3.0, 0.0], [1.0, 0.0, 0.5]])  # of class 1, which is wrong, and of class 0
    labels, recipe = torch.tensor([0, 0]), Recipe(distillation=0.7, temperature=4.0, label_smoothing=0.0)
    loss = _distilled(logits, labels, nn.Identity(), answers, recipe)
    of_label = -logits[0].log_softmax(0)[0]
    target = (answers[1] / 4).softmax(0)
    divergence = 16 * (target * (target.log() - (logits[1] / 4).log_softmax(0))).sum()
    torch.testing.assert_close(loss, (of_label + 0.3 * of_label + 0.7 * divergence) / 2)


def test_interrupted_training_resumes_to_the_same_weights(tmp_path: Path) -> None:
    images, labels = pixels()
    partial = tmp_path / "training.partial"
    recipe = Recipe(epochs=3, batch_size=32, learning_rate=1e-3)

    def run(stop_at: int | None = None) -> tuple[dict[str, torch.Tensor], int]:
        torch.manual_seed(0)
        module, steps = build(SPEC), 0

        def on_progress(progress: Progress) -> None:
            nonlocal steps
            steps += 1
            if progress.step == stop_at:
                raise KeyboardInterrupt

        try:
            fit(
                module,
                images,
                labels,
                default_preprocessing("mobilenet_v1"),
                recipe,
                on_progress=on_progress,
                partial=partial,
            )
        except KeyboardInterrupt:
            assert partial.exists()
        return module.state_dict(), steps

    uninterrupted, _ = run()
    assert not partial.exists()
    run(stop_at=8)  # in the third epoch
    resumed, steps = run()
    assert steps == 3
    assert all(torch.equal(uninterrupted[name], resumed[name]) for name in uninterrupted)
    partial.write_bytes(b"half a file")
    with pytest.raises(UsageError, match=r"damaged and has been removed: .*training\.partial"):
        run()
