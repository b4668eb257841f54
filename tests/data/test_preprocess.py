from __future__ import annotations

import io
from dataclasses import replace
from importlib import metadata

import numpy as np
import pytest
from PIL import Image

from mbbench.data.preprocess import Preprocess


def test_the_whole_of_a_square_image_is_kept() -> None:
    pixels = np.zeros((8, 8), np.uint8)
    pixels[0, 0], pixels[7, 7] = 255, 128
    found = Preprocess(32, 1.0).resize(Image.fromarray(pixels))
    assert found.shape == (32, 32, 3)
    assert found.dtype == np.uint8
    assert found[0, 0].tolist() == [255] * 3
    assert found[-1, -1].tolist() == [128] * 3


@pytest.mark.parametrize(("width", "height"), [(512, 256), (256, 512), (256, 256)])
def test_the_centre_is_cut_out(width: int, height: int) -> None:
    """At 224 and 0.875 a shorter side of 256 is not scaled, so the crop is exact."""
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    left, top = (width - 224) // 2, (height - 224) // 2
    found = Preprocess(224, 0.875).resize(Image.fromarray(pixels))
    assert np.array_equal(found, pixels[top : top + 224, left : left + 224])


def test_shrinking_averages() -> None:
    """Without antialiasing a fine checkerboard would turn black, white or striped."""
    checkerboard = (np.indices((512, 512)).sum(axis=0) % 2 * 255).astype(np.uint8)
    found = Preprocess(64, 1.0).resize(Image.fromarray(checkerboard))[4:-4, 4:-4]
    assert 126 <= found.min() <= found.max() <= 129


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "CMYK", "LA"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    assert Preprocess(32, 0.875).resize(Image.new(mode, (40, 70))).shape == (32, 32, 3)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (33, 32), (301, 199)])
@pytest.mark.parametrize("resolution", [32, 127, 160])
def test_every_size_becomes_the_resolution(size: tuple[int, int], resolution: int) -> None:
    assert Preprocess(resolution, 0.875).resize(Image.new("RGB", size)).shape == (resolution, resolution, 3)


def test_decode_reads_an_encoded_image_and_refuses_others() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    assert np.array_equal(Preprocess(32, 1.0).decode(buffer), pixels)
    with pytest.raises(OSError, match="cannot identify"):
        Preprocess(32, 1.0).decode(io.BytesIO(b"no image"))


def test_the_fingerprint_tells_what_changes_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Preprocess(128, 0.875)
    assert one.fingerprint == Preprocess(128, 0.875).fingerprint
    prints = {one.fingerprint, replace(one, resolution=160).fingerprint, replace(one, crop_fraction=1.0).fingerprint}
    monkeypatch.setattr(metadata, "version", lambda name: "0")
    prints.add(one.fingerprint)
    assert len(prints) == 4
