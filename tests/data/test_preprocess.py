from __future__ import annotations

import io
from dataclasses import replace
from importlib import metadata
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from mbbench.data.preprocess import Preprocess
from mbbench.spec import Interpolation, content_key


def test_a_crop_fraction_of_one_keeps_a_square_image() -> None:
    pixels = np.zeros((8, 8), np.uint8)
    pixels[0, 0], pixels[7, 7] = 255, 128
    resized = Preprocess((32, 32), 1.0).resize(Image.fromarray(pixels))
    assert resized.shape == (32, 32, 3)
    assert resized.dtype == np.uint8
    assert resized[0, 0].tolist() == [255] * 3
    assert resized[-1, -1].tolist() == [128] * 3


@pytest.mark.parametrize(("width", "height"), [(512, 256), (256, 512), (256, 256)])
def test_the_center_is_cropped(width: int, height: int) -> None:
    """At 224 and 0.875, a shorter side of 256 is not resized, so the crop is exact."""
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    left, top = (width - 224) // 2, (height - 224) // 2
    cropped = Preprocess((224, 224), 0.875).resize(Image.fromarray(pixels))
    assert np.array_equal(cropped, pixels[top : top + 224, left : left + 224])


def test_downscaling_averages_pixels() -> None:
    """Without antialiasing, a fine checkerboard would become black, white or striped."""
    checkerboard = (np.indices((512, 512)).sum(axis=0) % 2 * 255).astype(np.uint8)
    pixels = Preprocess((64, 64), 1.0).resize(Image.fromarray(checkerboard))[4:-4, 4:-4]
    assert 126 <= pixels.min() <= pixels.max() <= 129


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "CMYK", "LA"])
def test_every_mode_is_converted_to_rgb(mode: str) -> None:
    assert Preprocess((32, 32), 0.875).resize(Image.new(mode, (40, 70))).shape == (32, 32, 3)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (33, 32), (301, 199)])
@pytest.mark.parametrize("resolution", [32, 127, 160])
def test_every_size_is_resized_to_the_resolution(size: tuple[int, int], resolution: int) -> None:
    resized = Preprocess((resolution, resolution), 0.875).resize(Image.new("RGB", size))
    assert resized.shape == (resolution, resolution, 3)


@pytest.mark.parametrize(
    ("image", "share", "left", "top"),
    [((80, 40), 0.75, 10, 10), ((80, 60), 0.75, 10, 20), ((200, 40), 0.5, 70, 10)],
)
def test_a_rectangular_input_is_cut_out_of_the_center(
    image: tuple[int, int], share: float, left: int, top: int
) -> None:
    """The input, 60x20 pixels, is `share` of the largest part of its shape in the image (width, height)."""
    pixels = np.random.default_rng(0).integers(0, 256, (image[1], image[0], 3), np.uint8)
    cut = Preprocess((20, 60), share).resize(Image.fromarray(pixels))
    assert np.array_equal(cut, pixels[top : top + 20, left : left + 60])


def test_decode_reads_encoded_images_and_nothing_else() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    assert np.array_equal(Preprocess((32, 32), 1.0).decode(buffer), pixels)
    with pytest.raises(OSError, match="cannot identify"):
        Preprocess((32, 32), 1.0).decode(io.BytesIO(b"not an image"))


def test_the_fingerprint_depends_on_parameters_and_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Preprocess((128, 128), 0.875)
    assert original.fingerprint == Preprocess((128, 128), 0.875).fingerprint
    changed = replace(original, size=(160, 160)), replace(original, crop_fraction=1.0)
    fingerprints = {preprocess.fingerprint for preprocess in (original, *changed)}
    monkeypatch.setattr(metadata, "version", lambda name: "0")
    fingerprints.add(original.fingerprint)
    assert len(fingerprints) == 4


def test_the_interpolation_is_applied_and_bilinear_has_the_fingerprint_of_before_it() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8))
    for interpolation in get_args(Interpolation):
        expected = image.resize((64, 64), Image.Resampling[interpolation.upper()])
        assert np.array_equal(Preprocess((64, 64), 1.0, interpolation).resize(image), np.asarray(expected))
    assert len({Preprocess((64, 64), 1.0, interpolation).fingerprint for interpolation in get_args(Interpolation)}) == 4
    before = content_key({"resolution": 64, "crop_fraction": 1.0}, metadata.version("pillow"), 1)
    assert Preprocess((64, 64), 1.0).fingerprint == before


def test_formats_that_start_other_programs_are_not_read() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 40)).save(buffer, "EPS")  # which Pillow reads by Ghostscript
    buffer.seek(0)
    with pytest.raises(OSError, match="cannot identify image file"):
        Preprocess((32, 32), 1.0).decode(buffer)
