from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mbbench.data.sources import Digits, FashionMnist, read_idx, stratified
from mbbench.errors import UsageError


def idx(array: NDArray[np.uint8]) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_fashion(folder: Path, *, train: int = 20, test: int = 10, zipped: bool = False) -> None:
    generator = np.random.default_rng(0)
    for prefix, count in (("train", train), ("t10k", test)):
        images = generator.integers(0, 256, (count, 28, 28), np.uint8)
        for what, array in (("images-idx3", images), ("labels-idx1", np.arange(count, dtype=np.uint8) % 10)):
            content = idx(array)
            path = folder / f"{prefix}-{what}-ubyte{'.gz' if zipped else ''}"
            path.write_bytes(gzip.compress(content) if zipped else content)


def test_digits_are_the_published_set() -> None:
    images, labels = Digits().items("train", 1)
    tests, test_labels = Digits().items("test", 1)
    assert len(images) + len(tests) == 1797  # 178, 182, 177, 183, 181, 182, 181, 179, 174 and 180 of each digit
    both = np.bincount(labels) + np.bincount(test_labels)
    assert both.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert np.bincount(test_labels).tolist() == [36, 36, 35, 37, 36, 36, 36, 36, 35, 36]
    assert np.max(images) == 255  # 16 levels over the whole range
    assert np.min(images) == 0


def test_splits_are_disjoint_stratified_and_seeded() -> None:
    labels = np.repeat([0, 1, 2], [10, 50, 3])
    train, test = stratified(labels, "train", 7), stratified(labels, "test", 7)
    assert sorted([*train, *test]) == list(range(63))
    assert np.bincount(labels[test]).tolist() == [2, 10, 1]
    assert np.array_equal(test, stratified(labels, "test", 7))
    assert not np.array_equal(test, stratified(labels, "test", 8))


@pytest.mark.parametrize("zipped", [False, True])
def test_fashion_mnist_keeps_its_own_test_set(tmp_path: Path, zipped: bool) -> None:
    write_fashion(tmp_path, zipped=zipped)
    source = FashionMnist(tmp_path)
    images, labels = source.items("train", 0)
    tests, test_labels = source.items("test", 0)
    expected = np.random.default_rng(0).integers(0, 256, (20, 28, 28), np.uint8)
    assert np.array_equal(images, expected)
    assert labels.dtype == np.int64
    assert labels.tolist() == [*range(10), *range(10)]
    assert (len(tests), test_labels.tolist()) == (10, list(range(10)))
    assert source.classes() == 10


def test_the_identity_follows_the_files(tmp_path: Path) -> None:
    write_fashion(tmp_path)
    before = FashionMnist(tmp_path).identity()
    assert FashionMnist(tmp_path).identity() == before
    write_fashion(tmp_path, train=30)
    assert FashionMnist(tmp_path).identity() != before


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "is no idx file of 3 dimensions"),
        (b"\0\0\x08\x03\0\0", "is no idx file of 3 dimensions"),
        (idx(np.zeros(9, np.uint8)), "is no idx file of 3 dimensions"),
        (b"\0\0\x0d\x03" + bytes(12), "is no idx file of 3 dimensions"),
        (idx(np.zeros((2, 28, 28), np.uint8))[:-1], "holds 1567 bytes, its header says 1568"),
        (idx(np.zeros((2, 28, 28), np.uint8)) + b"\0", "holds 1569 bytes, its header says 1568"),
        (b"\0\0\x08\x03" + b"\xff" * 12, f"holds 0 bytes, its header says {(2**32 - 1) ** 3}"),
    ],
)
def test_a_damaged_idx_file_is_named(tmp_path: Path, content: bytes, cause: str) -> None:
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_idx(path, 3)
    assert str(caught.value) == f"{path} {cause}; fetch the file again"


@pytest.mark.parametrize("keep", [0, 5, 20, 60])
def test_a_truncated_or_unzipped_gz_is_named(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(idx(np.arange(100, dtype=np.uint8)))[:keep] if keep else b"not gzip at all")
    with pytest.raises(UsageError, match=r"^cannot read .*x\.gz"):
        read_idx(path, 1)


def test_what_is_not_fashion_mnist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"lacks train-images-idx3-ubyte\[\.gz\]; name the folder with the four idx"):
        FashionMnist(tmp_path).identity()
    write_fashion(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(19, np.uint8)))
    with pytest.raises(UsageError, match="has 20 train images and 19 labels"):
        FashionMnist(tmp_path).items("train", 0)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.full(20, 10, np.uint8)))
    with pytest.raises(UsageError, match="has a label 10"):
        FashionMnist(tmp_path).items("train", 0)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx(np.zeros((10, 0, 28), np.uint8)))
    with pytest.raises(UsageError, match="has t10k images of 0x28, not 28x28"):
        FashionMnist(tmp_path).items("test", 0)
