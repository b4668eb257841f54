from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mbbench import data
from mbbench.errors import UsageError

FASHION = Path("/usr/share/datasets/fashion-mnist")  # where Debian's dataset-fashion-mnist puts it


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("MBBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "data"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for kind in ("a", "b"):
        (tmp_path / "photos" / kind).mkdir(parents=True)
        for i in range(10):
            pixels = generator.integers(0, 256, (50, 40, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / kind / f"{i}.png")
    return tmp_path / "photos"


def test_digits_by_default_need_nothing(folder: Path) -> None:
    train, test = data.load("digits", 32, "train"), data.load("digits", 32, "test")
    images, labels = train.arrays()
    assert (images.shape, str(images.dtype)) == ((1438, 32, 32, 3), "uint8")
    assert (labels.shape, str(labels.dtype)) == ((1438,), "int64")
    assert isinstance(images, np.memmap)
    assert not images.flags.writeable
    assert (test.name, test.count, test.classes) == ("digits", 359, 10)
    assert train.fingerprint != test.fingerprint
    assert names(folder) == sorted(
        f"{one.fingerprint}.{what}.npy" for one in (train, test) for what in ("images", "labels")
    )


def test_no_test_image_was_trained_on() -> None:
    images = [{image.tobytes() for image in data.load("digits", 32, split).arrays()[0]} for split in ("train", "test")]
    assert not images[0] & images[1]


def test_the_second_load_reads_the_cache(photos: Path) -> None:
    done: list[tuple[int, int]] = []
    first = data.load(str(photos), 32, "train", on_progress=lambda *n: done.append(n))
    assert done == [(i, 16) for i in range(1, 17)]
    done.clear()
    assert data.load(str(photos), 32, "train", on_progress=lambda *n: done.append(n)) == first
    assert done == []


def test_a_warm_load_needs_numpy_alone() -> None:
    data.load("digits", 32, "test")
    code = (
        "import sys; from mbbench import data; data.load('digits', 32, 'test').arrays();"
        "print([name for name in ('torch', 'PIL', 'sklearn', 'scipy') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("what", ["images", "labels"])
@pytest.mark.parametrize("damage", ["emptied", "truncated", "other", "longer", "removed"])
def test_a_damaged_cache_is_made_again(folder: Path, photos: Path, what: str, damage: str) -> None:
    found = data.load(str(photos), 32, "test")
    images, labels = (np.array(array) for array in found.arrays())
    path = folder / f"{found.fingerprint}.{what}.npy"
    content = path.read_bytes()
    match damage:
        case "emptied":
            path.write_bytes(b"")
        case "truncated":
            path.write_bytes(content[:-1])
        case "other":
            np.save(path, np.zeros((4, 32, 32, 3), np.float32))
        case "longer":
            np.save(path, np.concatenate([np.load(path), np.load(path)]))
        case "removed":
            path.unlink()
    again = data.load(str(photos), 32, "test")
    assert again == found
    assert np.array_equal(again.arrays()[0], images)
    assert np.array_equal(again.arrays()[1], labels)


def test_the_limit_is_a_seeded_subset(photos: Path) -> None:
    whole = data.load(str(photos), 32, "train")
    some = data.load(str(photos), 32, "train", limit=5)
    assert some.count == 5
    assert some.fingerprint != whole.fingerprint
    images, labels = some.arrays()
    of_all = [image.tobytes() for image in whole.arrays()[0]]
    places = [of_all.index(image.tobytes()) for image in images]
    assert places == sorted(set(places))
    assert places != [0, 1, 2, 3, 4]  # not the first ones, which would be of one class
    assert labels.tolist() == whole.arrays()[1][places].tolist()
    assert data.load(str(photos), 32, "train", limit=100).count == 16
    with pytest.raises(UsageError, match=r"^0 images are none; give at least 1$"):
        data.load(str(photos), 32, "train", limit=0)


def test_the_fingerprint_follows_pixels_and_size(photos: Path) -> None:
    prints = {data.load(str(photos), resolution, "test").fingerprint for resolution in (32, 33)}
    os.utime(photos / "a" / "0.png", ns=(1, 1))
    prints.add(data.load(str(photos), 32, "test").fingerprint)
    assert len(prints) == 3


def test_a_failed_decoding_leaves_nothing_behind(folder: Path, photos: Path) -> None:
    data.load(str(photos), 32, "test")
    before = names(folder)
    for path in photos.glob("b/*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(UsageError, match=r"^cannot decode .*/b/\d\.png"):
        data.load(str(photos), 32, "test")
    assert names(folder) == before


def test_what_is_missing_is_named(tmp_path: Path, photos: Path) -> None:
    with pytest.raises(UsageError) as caught:
        data.load(str(tmp_path / "absent"), 32, "test")
    assert str(caught.value) == (
        f"there is no data folder {str(tmp_path / 'absent')!r}; name a folder of images, fashion-mnist:DIR, or digits"
    )
    with pytest.raises(UsageError, match="no data folder ''"):
        data.load("fashion-mnist:", 32, "test")
    (photos / "a" / "0.png").unlink()
    (photos / "a" / "0.png").symlink_to("gone.png")
    with pytest.raises(UsageError, match=r"^cannot read .*/a/0\.png \(No such file or directory\)"):
        data.load(str(photos), 32, "test")


def test_an_empty_split_is_said(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "both").mkdir()
    photos.rename(tmp_path / "both" / "train")
    (tmp_path / "both" / "val").mkdir()
    with pytest.raises(UsageError, match=r"^both has no images to test with"):
        data.load(str(tmp_path / "both"), 32, "test")


@pytest.mark.skipif(not FASHION.is_dir(), reason="dataset-fashion-mnist is not installed")
def test_the_real_fashion_mnist() -> None:
    found = data.load(f"fashion-mnist:{FASHION}", 32, "test", limit=2000)
    images, labels = found.arrays()
    assert images.shape == (2000, 32, 32, 3)
    assert np.bincount(labels, minlength=10).min() > 150  # 1000 of each among 10,000
    bag, trouser = images[labels == 8].mean(), images[labels == 1].mean()
    assert bag > trouser  # a bag fills the picture, trousers are two stripes
