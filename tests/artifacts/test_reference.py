"""PyTorch's own logits, which every runtime's are compared with."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mbbench import data, weights
from mbbench.artifacts import reference
from mbbench.data.feed import to_float
from mbbench.models import normalization
from mbbench.spec import ModelSpec, Shard

SPEC = ModelSpec(alpha=0.25, resolution=32, classes=10)


@pytest.fixture(scope="module")
def images() -> data.Dataset:
    return data.load("digits", 32, "test", limit=40)


def test_they_are_the_unfolded_networks_answers_in_the_order_of_the_images(images: data.Dataset) -> None:
    found = weights.random(SPEC)
    logits = np.load(reference.logits(found, images))
    assert (logits.dtype, logits.shape) == (np.float32, (40, 10))
    pixels, _ = images.arrays()
    with torch.inference_mode():
        last = found.build()(torch.from_numpy(to_float(pixels[39:], normalization("mobilenet_v1")))).numpy()
    np.testing.assert_allclose(logits[39:], last, rtol=0, atol=1e-5 * np.abs(last).max())


def test_they_are_computed_once(images: data.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    path = reference.logits(weights.random(SPEC), images)
    before = path.stat().st_mtime_ns
    monkeypatch.setattr(weights.Weights, "build", pytest.fail)
    assert reference.logits(weights.random(SPEC), images) == path
    assert path.stat().st_mtime_ns == before


def test_other_weights_or_images_have_answers_of_their_own(images: data.Dataset) -> None:
    wider = ModelSpec(alpha=0.5, resolution=32, classes=10)
    fewer = data.load("digits", 32, "test", limit=39)
    paths = {
        reference.logits(weights.random(spec), split)
        for spec, split in ((SPEC, images), (wider, images), (SPEC, fewer))
    }
    assert len(paths) == 3


def test_progress_counts_images(images: data.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MBBENCH_CACHE", str(tmp_path))
    seen: list[tuple[int, int]] = []
    reference.logits(weights.random(SPEC), images, lambda *counts: seen.append(counts))
    assert seen == [(32, 40), (40, 40)]


@pytest.mark.usefixtures("all_threads")
def test_a_shards_logits_are_those_of_all_images_and_are_kept_by_themselves(
    images: data.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MBBENCH_CACHE", str(tmp_path))
    found = weights.random(SPEC)
    whole = np.load(reference.logits(found, images))
    for shard in (Shard(0, 32), Shard(32, 40)):
        path = reference.logits(found, images, shard=shard)
        np.testing.assert_array_equal(np.load(path), whole[shard.rows])
        assert path != reference.logits(found, images)
    assert reference.first(images) == Shard(0, 32)
    assert reference.first(data.load("digits", 32, "test", limit=20)) == Shard(0, 20)
