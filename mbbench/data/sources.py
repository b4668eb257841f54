"""Where labelled images come from: what a source is, the embedded digits and idx files. Folders are in folders.py."""

from __future__ import annotations

import gzip
import math
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbbench.data.preprocess import Preprocess
from mbbench.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_TEST_SHARE = 0.2


class Source(ABC):
    """A data set before decoding. Its items are whatever its `decode` understands."""

    name: str
    crop_fraction = 1.0

    @abstractmethod
    def identity(self) -> object:
        """Plain data that changes when the content does, found without decoding anything."""

    @abstractmethod
    def classes(self) -> int: ...

    @abstractmethod
    def items(self, split: str, seed: int) -> tuple[Sequence[Any], NDArray[np.int64]]:
        """The split's items and labels, in a fixed order."""

    @abstractmethod
    def decode(self, items: Sequence[Any], preprocess: Preprocess) -> Iterator[NDArray[np.uint8]]:
        """The pixels of each item, in their order."""


class Digits(Source):
    """1,797 handwritten digits of 8x8 pixels (Alpaydin and Kaynak 1998), which scikit-learn carries."""

    name = "digits"

    def identity(self) -> object:
        return [self.name, metadata.version("scikit-learn")]

    def classes(self) -> int:
        return 10

    def items(self, split: str, seed: int) -> tuple[Sequence[Any], NDArray[np.int64]]:
        import numpy as np
        from sklearn.datasets import load_digits

        pixels, labels = load_digits(return_X_y=True)
        images = np.round(pixels.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
        chosen = stratified(labels, split, seed)
        return list(images[chosen]), labels[chosen].astype(np.int64)

    def decode(self, items: Sequence[Any], preprocess: Preprocess) -> Iterator[NDArray[np.uint8]]:
        return _from_arrays(items, preprocess)


class FashionMnist(Source):
    """60,000 + 10,000 labelled 28x28 images (Xiao et al. 2017) as idx files."""

    name = "fashion-mnist"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def identity(self) -> object:
        files = [self._file(split, what) for split in ("train", "t10k") for what in ("images-idx3", "labels-idx1")]
        return [self.name, *(stamp(path) for path in files)]

    def classes(self) -> int:
        return 10

    def items(self, split: str, seed: int) -> tuple[Sequence[Any], NDArray[np.int64]]:
        import numpy as np

        prefix = "t10k" if split == "test" else "train"
        images = read_idx(self._file(prefix, "images-idx3"), dimensions=3)
        if images.shape[1:] != (28, 28):
            size = "x".join(map(str, images.shape[1:]))
            raise UsageError(f"{self._folder} has {prefix} images of {size}, not 28x28", "check the files")
        labels = read_idx(self._file(prefix, "labels-idx1"), dimensions=1)
        if len(images) != len(labels):
            raise UsageError(
                f"{self._folder} has {len(images)} {prefix} images and {len(labels)} labels", "fetch the files again"
            )
        if labels.size and labels.max() >= self.classes():
            raise UsageError(f"{self._folder} has a label {labels.max()}, Fashion-MNIST has 0 to 9", "check the files")
        return list(images), labels.astype(np.int64)

    def decode(self, items: Sequence[Any], preprocess: Preprocess) -> Iterator[NDArray[np.uint8]]:
        return _from_arrays(items, preprocess)

    def _file(self, split: str, what: str) -> Path:
        for name in (f"{split}-{what}-ubyte", f"{split}-{what}-ubyte.gz"):
            if (self._folder / name).is_file():
                return self._folder / name
        raise UsageError(f"{self._folder} lacks {split}-{what}-ubyte[.gz]", "name the folder with the four idx files")


def stratified(labels: NDArray[np.int64], split: str, seed: int) -> NDArray[np.int64]:
    """Sorted indices of the split: of every class a fifth, and at least one image, is for testing."""
    import numpy as np

    generator = np.random.default_rng(seed)
    chosen = []
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        border = max(round(_TEST_SHARE * len(members)), 1)
        chosen.append(members[:border] if split == "test" else members[border:])
    return np.sort(np.concatenate(chosen))


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """The unsigned bytes of an idx file (LeCun's format for MNIST).

    Two zeros, the type (8), the number of dimensions, their big-endian sizes, then the bytes.
    """
    import numpy as np

    remedy = "fetch the file again"
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"cannot read {path} ({error})", remedy) from error
    header = 4 + 4 * dimensions
    if content[:4] != bytes((0, 0, 8, dimensions)) or len(content) < header:
        raise UsageError(f"{path} is no idx file of {dimensions} dimensions", remedy)
    shape = np.frombuffer(content[4:header], ">u4").tolist()
    if len(content) != header + math.prod(shape):
        raise UsageError(f"{path} holds {len(content) - header} bytes, its header says {math.prod(shape)}", remedy)
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def stamp(path: Path) -> tuple[int, int]:
    """Size in bytes and time of the last change in ns: they change when the content does."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _from_arrays(items: Sequence[Any], preprocess: Preprocess) -> Iterator[NDArray[np.uint8]]:
    from PIL import Image

    for item in items:
        yield preprocess.resize(Image.fromarray(item))
