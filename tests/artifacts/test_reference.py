"""PyTorch's logits, the reference that every runtime's logits are compared with."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mbbench import data, weights
from mbbench.artifacts import reference
from mbbench.data.feed import to_float
from mbbench.models import default_preprocessing
from mbbench.spec import ModelSpec, Preprocessing, Shard

SPEC = ModelSpec(alpha=0.25, resolution=32, classes=10)


@pytest.fixture(scope="module")
def images() -> data.Dataset:
    return data.load_split("digits", (32, 32), "test", limit=40)


def test_logits_are_the_unfolded_networks_in_the_order_of_the_images(images: data.Dataset) -> None:
    network = weights.random(SPEC)
    logits = np.load(reference.logits(network, images))
    assert (logits.dtype, logits.shape) == (np.float32, (40, 10))
    pixels, _ = images.arrays()
    with torch.inference_mode():
        last = network.build()(torch.from_numpy(to_float(pixels[39:], default_preprocessing("mobilenet_v1")))).numpy()
    np.testing.assert_allclose(logits[39:], last, rtol=0, atol=1e-5 * np.abs(last).max())


def test_logits_are_computed_once(images: data.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    path = reference.logits(weights.random(SPEC), images)
    before = path.stat().st_mtime_ns
    monkeypatch.setattr(weights.Weights, "build", pytest.fail)
    assert reference.logits(weights.random(SPEC), images) == path
    assert path.stat().st_mtime_ns == before


def test_other_weights_or_images_have_other_logits(images: data.Dataset) -> None:
    wider = ModelSpec(alpha=0.5, resolution=32, classes=10)
    fewer = data.load_split("digits", (32, 32), "test", limit=39)
    paths = {
        reference.logits(weights.random(spec), split)
        for spec, split in ((SPEC, images), (wider, images), (SPEC, fewer))
    }
    assert len(paths) == 3


def test_progress_counts_images(images: data.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MBBENCH_CACHE", str(tmp_path))
    progress: list[tuple[int, int]] = []
    reference.logits(weights.random(SPEC), images, lambda *counts: progress.append(counts))
    assert progress == [(32, 40), (40, 40)]


@pytest.mark.usefixtures("all_threads")
def test_a_shards_logits_equal_those_of_all_images_and_are_stored_separately(
    images: data.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MBBENCH_CACHE", str(tmp_path))
    network = weights.random(SPEC)
    logits = np.load(reference.logits(network, images))
    for shard in (Shard(0, 32), Shard(32, 40)):
        path = reference.logits(network, images, shard=shard)
        np.testing.assert_array_equal(np.load(path), logits[shard.rows])
        assert path != reference.logits(network, images)


def test_parity_is_checked_on_one_batch_or_on_all_images(images: data.Dataset) -> None:
    assert reference.parity_shard(images) == Shard(0, 32)
    assert reference.parity_shard(data.load_split("digits", (32, 32), "test", limit=20)) == Shard(0, 20)


def test_logits_are_of_the_chosen_preprocessing() -> None:
    chosen = Preprocessing(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), channels="bgr")
    usual, other = (data.load_split("digits", (32, 32), "test", limit=8, preprocessing=p) for p in (None, chosen))
    network = weights.random(SPEC)
    path = reference.logits(network, other)
    assert path != reference.logits(network, usual)
    planes = (other.arrays()[0].astype(np.float64) / 255 - chosen.mean) / chosen.std
    with torch.inference_mode():
        expected = network.build()(torch.from_numpy(planes[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32).copy()))
    np.testing.assert_allclose(np.load(path), expected.numpy(), rtol=0, atol=1e-4 * float(expected.abs().max()))
