"""Broken images: all are listed, or left out by --skip-broken; nothing is decoded twice."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from mbbench import data
from mbbench.errors import UsageError


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("MBBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "data"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of ten images; the shade of each is its own."""
    for number, kind in enumerate(("a", "b")):
        (tmp_path / "photos" / kind).mkdir(parents=True)
        for i in range(10):
            Image.new("L", (40, 40), 10 * number + i).save(tmp_path / "photos" / kind / f"{i}.png")
    return tmp_path / "photos"


def load(folder: Path, split: data.Split = "test", *, skip: bool = False, limit: int | None = None) -> data.Dataset:
    return data.load_split(str(folder), (32, 32), split, skip_broken=skip, limit=limit)


def shades(split: data.Dataset) -> list[int]:
    images, _ = split.arrays()
    return [int(image[0, 0, 0]) for image in images]


def files_of(photos: Path, shades: list[int]) -> list[Path]:
    return [photos / "ab"[shade // 10] / f"{shade % 10}.png" for shade in shades]


def fill(path: Path) -> None:
    path.write_bytes(b"no image")


def test_all_broken_images_of_a_divided_folder_are_listed_at_once(photos: Path) -> None:
    broken = [photos / "a" / "3.png", *sorted((photos / "b").iterdir())]
    for path in broken:
        fill(path)
    for split in ("test", "train"):
        with pytest.raises(UsageError) as caught:
            load(photos, split)
        listed = ", ".join(f"{path} (not an image)" for path in broken[:10])
        assert str(caught.value) == (
            f"11 of 20 images of photos cannot be decoded: {listed} and 1 more; replace or remove these files, or give"
            " --skip-broken"
        )


def test_a_single_broken_image_is_named(photos: Path) -> None:
    (path,) = files_of(photos, shades(load(photos))[:1])
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UsageError) as caught:
        load(photos)
    assert str(caught.value) == (
        f"cannot decode {path} (a FIFO, not a file); replace or remove the file, or give --skip-broken"
    )


def test_only_the_read_split_is_listed_if_the_user_made_the_splits(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "both").mkdir()
    for split in ("train", "val"):
        for kind in ("a", "b"):
            (tmp_path / "both" / split / kind).mkdir(parents=True)
            Image.new("L", (40, 40)).save(tmp_path / "both" / split / kind / "good.png")
            fill(tmp_path / "both" / split / kind / "bad.png")
    with pytest.raises(UsageError, match=r"^2 of 4 images of both cannot be decoded: .*/val/a/bad.*/val/b/bad\.png"):
        load(tmp_path / "both")


def test_broken_images_are_left_out_and_counted(photos: Path) -> None:
    whole = load(photos, "train")
    numbers = shades(whole)
    missing = [numbers[2], numbers[9]]
    for path in files_of(photos, missing):
        fill(path)
    rest = load(photos, "train", skip=True)
    assert shades(rest) == [number for number in numbers if number not in missing]
    assert rest.arrays()[1].tolist() == [number // 10 for number in shades(rest)]
    paths = [str(path) for path in files_of(photos, missing)]
    assert (rest.count, rest.skipped, rest.info.skipped) == (14, tuple(paths), 2)
    assert rest.statements == [
        "photos: 16 training and 4 test images",
        f"photos: 2 of 16 training images cannot be decoded and are left out: {', '.join(paths)}",
    ]


def test_without_broken_images_the_option_changes_nothing(photos: Path) -> None:
    assert load(photos, skip=True) == load(photos)
    assert load(photos, skip=True, limit=2) == load(photos, limit=2)


def test_images_are_decoded_once_with_and_without_the_option(photos: Path, cache: Path) -> None:
    done: list[int] = []

    def load_and_count(*, skip: bool) -> data.Dataset:
        return data.load_split(
            str(photos), (32, 32), "test", skip_broken=skip, on_progress=lambda count, _: done.append(count)
        )

    (path, *_) = files_of(photos, shades(load(photos)))
    fill(path)
    with pytest.raises(UsageError):
        load_and_count(skip=False)
    assert done == [1, 2, 3, 4]
    for _ in range(2):
        assert load_and_count(skip=True).count == 3
        with pytest.raises(UsageError, match=f"^cannot decode {path}"):
            load_and_count(skip=False)
    assert done == [1, 2, 3, 4]
    assert not [file for file in cache.iterdir() if file.suffix not in (".npy", ".json")]


def test_a_file_that_becomes_readable_is_no_longer_left_out(photos: Path) -> None:
    (path, *_) = files_of(photos, shades(load(photos)))
    content, status = path.read_bytes(), path.stat()

    def write(new: bytes) -> None:  # of the same length and time, as if its permissions changed
        path.write_bytes(new)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    path.write_bytes(content)  # another time
    write(content[:20] + bytes(len(content) - 20))
    for file in (photos.parent / "cache" / "data").iterdir():
        file.unlink()
    partial = load(photos, skip=True)
    assert partial.count == 3
    write(content)
    whole = load(photos, skip=True)
    assert (whole.count, whole.skipped) == (4, ())
    assert partial.fingerprint != whole.fingerprint
    assert load(photos) == whole


def test_the_fingerprint_depends_on_what_is_left_out(photos: Path) -> None:
    before = load(photos)
    for path in files_of(photos, shades(before)[:2]):
        fill(path)
    two = load(photos, skip=True)
    assert two.fingerprint != before.fingerprint
    for path in (photos.parent / "cache" / "data").glob("*.json"):
        content = path.read_bytes()
        assert list(json.loads(content)) == ["0", "1"]
        path.write_bytes(content[:5])  # a damaged list is made again
    assert load(photos, skip=True) == two


@pytest.mark.parametrize("skip", [False, True])
def test_a_split_without_a_good_image_is_refused(photos: Path, skip: bool) -> None:
    for path in photos.glob("*/*.png"):
        fill(path)
    what = "^no test image of photos can be decoded; give other images$" if skip else "^20 of 20 images of photos"
    for _ in range(2):
        with pytest.raises(UsageError, match=what):
            load(photos, skip=skip)


def test_a_limit_counts_broken_images(photos: Path) -> None:
    for path in photos.glob("a/*.png"):
        fill(path)
    with pytest.raises(UsageError, match=r"^\d of 8 images of photos cannot be decoded"):
        load(photos, "train", limit=8)
    split = load(photos, "train", limit=8, skip=True)
    assert split.count + len(split.skipped) == 8
    assert set(split.arrays()[1].tolist()) == {1}


def test_a_crash_of_a_decoding_process_is_one_line(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(200):
        Image.new("L", (40, 40)).save(photos / "a" / f"x{i}.png")
    monkeypatch.setattr("mbbench.data.files._ignore_ctrl_c", os.abort)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    with pytest.raises(UsageError, match=r"^a process that decodes the images of photos ended unexpectedly;"):
        load(photos, "train")
