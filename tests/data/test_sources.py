from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mbbench.data.sources import Digits, FashionMnist, read_idx, stratified_indices
from mbbench.errors import UsageError


def encode_idx(array: NDArray[np.uint8]) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_fashion(folder: Path, *, train: int = 20, test: int = 10, zipped: bool = False) -> None:
    generator = np.random.default_rng(0)
    for prefix, count in (("train", train), ("t10k", test)):
        images = generator.integers(0, 256, (count, 28, 28), np.uint8)
        for what, array in (("images-idx3", images), ("labels-idx1", np.arange(count, dtype=np.uint8) % 10)):
            content = encode_idx(array)
            path = folder / f"{prefix}-{what}-ubyte{'.gz' if zipped else ''}"
            path.write_bytes(gzip.compress(content) if zipped else content)


def test_digits_have_the_published_numbers_of_images() -> None:
    images, labels = Digits().items("train", 1)
    test_images, test_labels = Digits().items("test", 1)
    assert len(images) + len(test_images) == 1797
    both = np.bincount(labels) + np.bincount(test_labels)
    assert both.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert np.bincount(test_labels).tolist() == [36, 36, 35, 37, 36, 36, 36, 36, 35, 36]
    assert np.max(images) == 255  # the original pixels are 0 to 16
    assert np.min(images) == 0


def test_splits_are_disjoint_stratified_and_seeded() -> None:
    labels = np.repeat([0, 1, 2], [10, 50, 3])
    train, test = stratified_indices(labels, "train", 7), stratified_indices(labels, "test", 7)
    assert sorted([*train, *test]) == list(range(63))
    assert np.bincount(labels[test]).tolist() == [2, 10, 1]
    assert np.array_equal(test, stratified_indices(labels, "test", 7))
    assert not np.array_equal(test, stratified_indices(labels, "test", 8))


@pytest.mark.parametrize("zipped", [False, True])
def test_fashion_mnist_keeps_its_test_set(tmp_path: Path, zipped: bool) -> None:
    write_fashion(tmp_path, zipped=zipped)
    source = FashionMnist(tmp_path)
    images, labels = source.items("train", 0)
    test_images, test_labels = source.items("test", 0)
    expected = np.random.default_rng(0).integers(0, 256, (20, 28, 28), np.uint8)
    assert np.array_equal(images, expected)
    assert labels.dtype == np.int64
    assert labels.tolist() == [*range(10), *range(10)]
    assert (len(test_images), test_labels.tolist()) == (10, list(range(10)))
    assert source.classes() == 10


def test_the_identity_depends_on_the_files(tmp_path: Path) -> None:
    write_fashion(tmp_path)
    before = FashionMnist(tmp_path).identity()
    assert FashionMnist(tmp_path).identity() == before
    write_fashion(tmp_path, train=30)
    assert FashionMnist(tmp_path).identity() != before


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "is not an idx file of unsigned bytes in 3 dimensions"),
        (b"\0\0\x08\x03\0\0", "is not an idx file of unsigned bytes in 3 dimensions"),
        (encode_idx(np.zeros(9, np.uint8)), "is not an idx file of unsigned bytes in 3 dimensions"),
        (b"\0\0\x0d\x03" + bytes(12), "is not an idx file of unsigned bytes in 3 dimensions"),
        (encode_idx(np.zeros((2, 28, 28), np.uint8))[:-1], "has 1567 bytes of data, but its header gives 1568"),
        (
            encode_idx(np.zeros((2, 28, 28), np.uint8)) + b"\0",
            "has 1569 bytes of data, but its header gives 1568",
        ),
        (b"\0\0\x08\x03" + b"\xff" * 12, f"has 0 bytes of data, but its header gives {(2**32 - 1) ** 3}"),
    ],
)
def test_an_error_names_the_damaged_idx_file(tmp_path: Path, content: bytes, cause: str) -> None:
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_idx(path, 3)
    assert str(caught.value) == f"{path} {cause}; download the data set again"


@pytest.mark.parametrize("keep", [0, 5, 20, 60])
def test_an_error_names_the_damaged_gzip_file(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(encode_idx(np.arange(100, dtype=np.uint8)))[:keep] if keep else b"not gzip data")
    with pytest.raises(UsageError, match=r"^cannot read .*x\.gz"):
        read_idx(path, 1)


def test_files_that_are_not_fashion_mnist_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no file train-images-idx3-ubyte\[\.gz\]; give the folder that holds"):
        FashionMnist(tmp_path).identity()
    write_fashion(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(encode_idx(np.zeros(19, np.uint8)))
    with pytest.raises(UsageError, match="has 20 train images but 19 labels"):
        FashionMnist(tmp_path).items("train", 0)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(encode_idx(np.full(20, 10, np.uint8)))
    with pytest.raises(UsageError, match="is not 0 to 9: 10"):
        FashionMnist(tmp_path).items("train", 0)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(encode_idx(np.zeros((10, 0, 28), np.uint8)))
    with pytest.raises(UsageError, match="are not 28x28 pixels: 0x28"):
        FashionMnist(tmp_path).items("test", 0)


def test_a_file_that_unpacks_to_gigabytes_is_not_unpacked(tmp_path: Path) -> None:
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    start = packer.compress(encode_idx(np.zeros((2, 28, 28), np.uint8))) + packer.flush(zlib.Z_FULL_FLUSH)
    zeros = packer.compress(bytes(10**7)) + packer.flush(zlib.Z_FULL_FLUSH)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(start + zeros * 10_000)  # 100 GB
    with pytest.raises(UsageError, match="has 1569 bytes of data, but its header gives 1568"):
        read_idx(path, 3)
