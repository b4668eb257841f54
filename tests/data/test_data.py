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
from mbbench.result import SplitSizes
from mbbench.spec import Preprocessing

FASHION = Path("/usr/share/datasets/fashion-mnist")  # where Debian's package dataset-fashion-mnist installs it


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("MBBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "data"


def file_names(folder: Path) -> list[str]:
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


def test_digits_are_split_and_cached(folder: Path) -> None:
    train, test = data.load_split("digits", (32, 32), "train"), data.load_split("digits", (32, 32), "test")
    images, labels = train.arrays()
    assert (images.shape, str(images.dtype)) == ((1438, 32, 32, 3), "uint8")
    assert (labels.shape, str(labels.dtype)) == ((1438,), "int64")
    assert isinstance(images, np.memmap)
    assert not images.flags.writeable
    assert (test.name, test.count, test.classes) == ("digits", 359, 10)
    assert train.fingerprint != test.fingerprint
    assert file_names(folder) == sorted(
        f"{split.fingerprint}.{what}.npy" for split in (train, test) for what in ("images", "labels")
    )


def test_the_splits_share_no_image() -> None:
    train, test = data.load_split("digits", (32, 32), "train"), data.load_split("digits", (32, 32), "test")
    assert not {image.tobytes() for image in train.arrays()[0]} & {image.tobytes() for image in test.arrays()[0]}


def test_a_decoded_split_is_read_from_the_cache(photos: Path) -> None:
    done: list[tuple[int, int]] = []
    first = data.load_split(str(photos), (32, 32), "train", on_progress=lambda *n: done.append(n))
    assert done == [(i, 16) for i in range(1, 17)]
    done.clear()
    assert data.load_split(str(photos), (32, 32), "train", on_progress=lambda *n: done.append(n)) == first
    assert done == []


def test_a_cached_split_needs_only_numpy() -> None:
    data.load_split("digits", (32, 32), "test")
    code = (
        "import sys; from mbbench import data; data.load_split('digits', (32, 32), 'test').arrays();"
        "print([name for name in ('torch', 'PIL', 'sklearn', 'scipy') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("what", ["images", "labels"])
@pytest.mark.parametrize("damage", ["emptied", "truncated", "replaced", "longer", "removed"])
def test_a_damaged_cache_is_rebuilt(folder: Path, photos: Path, what: str, damage: str) -> None:
    decoded = data.load_split(str(photos), (32, 32), "test")
    images, labels = (np.array(array) for array in decoded.arrays())
    path = folder / f"{decoded.fingerprint}.{what}.npy"
    content = path.read_bytes()
    match damage:
        case "emptied":
            path.write_bytes(b"")
        case "truncated":
            path.write_bytes(content[:-1])
        case "replaced":
            np.save(path, np.zeros((4, 32, 32, 3), np.float32))
        case "longer":
            np.save(path, np.concatenate([np.load(path), np.load(path)]))
        case "removed":
            path.unlink()
    again = data.load_split(str(photos), (32, 32), "test")
    assert again == decoded
    assert np.array_equal(again.arrays()[0], images)
    assert np.array_equal(again.arrays()[1], labels)


def test_a_limit_takes_a_seeded_subset(photos: Path) -> None:
    whole = data.load_split(str(photos), (32, 32), "train")
    subset = data.load_split(str(photos), (32, 32), "train", limit=5)
    assert subset.count == 5
    assert subset.fingerprint != whole.fingerprint
    images, labels = subset.arrays()
    all_images = [image.tobytes() for image in whole.arrays()[0]]
    indices = [all_images.index(image.tobytes()) for image in images]
    assert indices == sorted(set(indices))
    assert indices != [0, 1, 2, 3, 4]  # the first images are all of one class
    assert labels.tolist() == whole.arrays()[1][indices].tolist()
    assert data.load_split(str(photos), (32, 32), "train", limit=100).count == 16
    with pytest.raises(
        UsageError, match=r"^--images is out of range: 0; give 1 to 10000000, or leave it out to use all$"
    ):
        data.load_split(str(photos), (32, 32), "train", limit=0)


def test_the_fingerprint_depends_on_files_and_resolution(photos: Path) -> None:
    fingerprints = {
        data.load_split(str(photos), (resolution, resolution), "test").fingerprint for resolution in (32, 33)
    }
    os.utime(photos / "a" / "0.png", ns=(1, 1))
    fingerprints.add(data.load_split(str(photos), (32, 32), "test").fingerprint)
    assert len(fingerprints) == 3


def test_an_interrupted_decoding_leaves_no_files_behind(folder: Path, photos: Path) -> None:
    data.load_split(str(photos), (32, 32), "test")
    before = file_names(folder)

    def interrupt(done: int, _: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        data.load_split(str(photos), (32, 32), "train", on_progress=interrupt)
    assert file_names(folder) == before


def test_a_split_says_how_a_folder_is_divided(photos: Path) -> None:
    split = data.load_split(str(photos), (32, 32), "test", limit=2)
    assert split.statements == ["photos: 16 training and 4 test images"]
    assert split.info.splits == SplitSizes(train=16, test=4)
    digits = data.load_split("digits", (32, 32), "test", limit=2)
    assert (digits.statements, digits.info.splits) == ([], None)
    photos.rename(photos.with_name("set"))
    (photos / "test").parent.mkdir()
    photos.with_name("set").rename(photos / "test")
    assert data.load_split(str(photos), (32, 32), "test").statements == ["photos: no training and 20 test images"]


def test_an_error_names_the_missing_folder_or_file(tmp_path: Path, photos: Path) -> None:
    with pytest.raises(UsageError) as caught:
        data.load_split(str(tmp_path / "absent"), (32, 32), "test")
    assert str(caught.value) == (
        f"there is no data folder {str(tmp_path / 'absent')!r}; give a folder of images, fashion-mnist:DIR or digits"
    )
    with pytest.raises(UsageError, match="no data folder ''"):
        data.load_split("fashion-mnist:", (32, 32), "test")
    (photos / "a" / "0.png").unlink()
    (photos / "a" / "0.png").symlink_to("gone.png")
    with pytest.raises(UsageError, match=r"^cannot decode .*/a/0\.png \(No such file or directory\)"):
        data.load_split(str(photos), (32, 32), "train")


def test_an_empty_split_is_refused(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "both").mkdir()
    photos.rename(tmp_path / "both" / "train")
    (tmp_path / "both" / "val").mkdir()
    with pytest.raises(UsageError, match=r"^both has no test images; add images, or give another data folder$"):
        data.load_split(str(tmp_path / "both"), (32, 32), "test")


@pytest.mark.skipif(not FASHION.is_dir(), reason="dataset-fashion-mnist is not installed")
def test_fashion_mnist_is_decoded() -> None:
    decoded = data.load_split(f"fashion-mnist:{FASHION}", (32, 32), "test", limit=2000)
    images, labels = decoded.arrays()
    assert images.shape == (2000, 32, 32, 3)
    assert np.bincount(labels, minlength=10).min() > 150  # there are 1000 of each among 10,000
    bag, trouser = images[labels == 8].mean(), images[labels == 1].mean()
    assert bag > trouser  # a bag fills the picture, trousers are two stripes


def test_digits_and_random_never_mean_a_folder(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("digits", "random"):
        photos.rename(photos.with_name(name))
        photos = photos.with_name(name)
        assert data.load_split(f"./{name}", (32, 32), "test").count == 4
    (tmp_path / "digits" / "class").mkdir(parents=True)
    assert data.load_split("digits", (32, 32), "test").count == 359
    with pytest.raises(UsageError) as caught:
        data.load_split("random", (32, 32), "test")
    assert str(caught.value) == "random is not a data set, but a value of --calibration; give ./random for a folder"


def test_only_what_changes_the_pixels_changes_the_fingerprint(photos: Path) -> None:
    usual = data.load_split(str(photos), (32, 32), "test")
    for same in (Preprocessing(), Preprocessing(crop=0.875), Preprocessing(mean=(0.0, 0.1, 0.2), channels="bgr")):
        assert data.load_split(str(photos), (32, 32), "test", preprocessing=same).fingerprint == usual.fingerprint
    other = [
        data.load_split(str(photos), (32, 32), "test", preprocessing=preprocessing)
        for preprocessing in (Preprocessing(crop=1.0), Preprocessing(interpolation="bicubic"))
    ]
    assert len({usual.fingerprint, *(split.fingerprint for split in other)}) == 3
    assert not np.array_equal(other[0].arrays()[0], usual.arrays()[0])


def test_the_key_of_default_preprocessing_is_the_fingerprint(photos: Path) -> None:
    def load(preprocessing: Preprocessing | None) -> data.Dataset:
        return data.load_split(str(photos), (32, 32), "test", preprocessing=preprocessing)

    usual, imagenet = Preprocessing(), Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    fingerprint = load(None).fingerprint
    for split in (load(None), load(usual), load(Preprocessing(crop=0.875))):  # a file's usual share
        assert (split.key("mobilenet_v1"), split.specialties("mobilenet_v1")) == (fingerprint, ())
    assert load(imagenet).key("vgg16") == load(None).key("vgg16") == fingerprint
    keys = {load(imagenet).key("mobilenet_v1"), load(Preprocessing(channels="bgr")).key("mobilenet_v1"), fingerprint}
    assert len(keys) == 3
    assert load(imagenet).special_preprocessing("mobilenet_v1") == imagenet
    assert load(None).preprocessing_for("vgg16") == imagenet
