"""Sources of labeled images: the interface, scikit-learn's digits and Fashion-MNIST. Folders are in `folders`.

To add a data set, write a subclass of `Source` here and one case for its name in `data._source`. If it has no test
split, divide it with `stratified_indices`. The cache, subsets and fingerprints are shared by all sources.
"""

from __future__ import annotations

import gzip
import math
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbbench.data.broken import Broken
from mbbench.data.preprocess import Preprocess
from mbbench.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_DOWNLOAD_AGAIN = "download the data set again"
_MAX_IDX_BYTES = 1 << 28  # five times what MNIST's largest file has
_FASHION = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
_TEST_SHARE = 0.2  # of a data set without a test split


class Source(ABC):
    """A data set before decoding.

    An item is one image as the source stores it: a path, an array, or anything else that its `decode` accepts.
    """

    name: str
    crop_fraction = 1.0  # see `Preprocess`
    is_divided = False  # whether `items` divides one folder of files into the two splits

    @abstractmethod
    def identity(self) -> object:
        """Return plain data that changes if the content does. Nothing is decoded for it."""

    def require_files(self) -> None:  # noqa: B027  (an optional hook)
        """Raise `UsageError` if a file is missing that is not looked for when the source is made."""

    @abstractmethod
    def classes(self) -> int:
        """Return the number of classes; 1 means that there are no labels."""

    def class_names(self) -> tuple[str, ...]:
        """Return the names of the classes, in the order of their numbers; empty if they have none."""
        return ()

    @abstractmethod
    def items(self, split: str, seed: int) -> tuple[Sequence[Any], NDArray[np.int64]]:
        """Return the items and labels of `split` ("train" or "test"), in a fixed order."""

    @abstractmethod
    def decode(self, items: Sequence[Any], preprocess: Preprocess) -> Iterator[NDArray[np.uint8] | Broken]:
        """Yield the pixels (H, W, 3) of each item, or why it has none, in the order of `items`."""

    def split_sizes(self, seed: int) -> tuple[int, int] | None:
        """Return the number of training and of test images in a folder of files; None for other sources."""
        return None

    def path_of(self, item: Any) -> str:
        """Return the name of an item in messages."""
        return str(item)


class Digits(Source):
    """The 1,797 handwritten digits of 8x8 pixels that scikit-learn includes (Alpaydin and Kaynak 1998)."""

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
        chosen = stratified_indices(labels, split, seed)
        return list(images[chosen]), labels[chosen].astype(np.int64)

    def decode(self, items: Sequence[Any], preprocess: Preprocess) -> Iterator[NDArray[np.uint8]]:
        return _from_arrays(items, preprocess)


class FashionMnist(Source):
    """Fashion-MNIST (Xiao et al. 2017) as idx files: 60,000 training and 10,000 test images of 28x28 pixels."""

    name = "fashion-mnist"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def identity(self) -> object:
        files = [self._file(prefix, kind) for prefix in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
        return [self.name, *(size_and_mtime(path) for path in files)]

    def require_files(self) -> None:
        self.identity()

    def classes(self) -> int:
        return 10

    def class_names(self) -> tuple[str, ...]:
        return _FASHION

    def items(self, split: str, seed: int) -> tuple[Sequence[Any], NDArray[np.int64]]:
        import numpy as np

        prefix = "t10k" if split == "test" else "train"
        images = read_idx(self._file(prefix, "images-idx3"), dimensions=3)
        if images.shape[1:] != (28, 28):
            size = "x".join(map(str, images.shape[1:]))
            raise UsageError(f"the {prefix} images in {self._folder} are not 28x28 pixels: {size}", _DOWNLOAD_AGAIN)
        labels = read_idx(self._file(prefix, "labels-idx1"), dimensions=1)
        if len(images) != len(labels):
            raise UsageError(
                f"{self._folder} has {len(images)} {prefix} images but {len(labels)} labels", _DOWNLOAD_AGAIN
            )
        if labels.size and labels.max() >= self.classes():
            raise UsageError(f"a label in {self._folder} is not 0 to 9: {labels.max()}", _DOWNLOAD_AGAIN)
        return list(images), labels.astype(np.int64)

    def decode(self, items: Sequence[Any], preprocess: Preprocess) -> Iterator[NDArray[np.uint8]]:
        return _from_arrays(items, preprocess)

    def _file(self, prefix: str, kind: str) -> Path:
        for name in (f"{prefix}-{kind}-ubyte", f"{prefix}-{kind}-ubyte.gz"):
            if (self._folder / name).is_file():
                return self._folder / name
        raise UsageError(
            f"{self._folder} has no file {prefix}-{kind}-ubyte[.gz]", "give the folder that holds the four idx files"
        )


def stratified_indices(labels: NDArray[np.int64], split: str, seed: int) -> NDArray[np.int64]:
    """Return the sorted indices of a split.

    The test split has a fifth of each class and at least one image of it; the training split has the rest.
    """
    import numpy as np

    generator = np.random.default_rng(seed)
    chosen = []
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        test_count = max(round(_TEST_SHARE * len(members)), 1)
        chosen.append(members[:test_count] if split == "test" else members[test_count:])
    return np.sort(np.concatenate(chosen))


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Return the unsigned bytes of an idx file (LeCun's format for MNIST), which is gzipped if its name ends with .gz.

    The format: two zero bytes, the type (8: unsigned byte), the number of dimensions, their sizes in big-endian order,
    then the data. Raises `UsageError` if the file is missing, damaged or has another number of dimensions.
    """
    import numpy as np

    header = 4 + 4 * dimensions
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(header)
            if content[:4] != bytes((0, 0, 8, dimensions)) or len(content) < header:
                kind = f"an idx file of unsigned bytes in {dimensions} dimensions"
                raise UsageError(f"{path} is not {kind}", _DOWNLOAD_AGAIN)
            shape = np.frombuffer(content[4:], ">u4").tolist()
            content += file.read(min(math.prod(shape), _MAX_IDX_BYTES) + 1)  # not all that a bomb unpacks to
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"cannot read {path} ({error})", _DOWNLOAD_AGAIN) from error
    if len(content) != header + math.prod(shape):
        raise UsageError(
            f"{path} has {len(content) - header} bytes of data, but its header gives {math.prod(shape)}",
            _DOWNLOAD_AGAIN,
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def size_and_mtime(path: Path) -> tuple[int, int]:
    """Return the size in bytes and the modification time in ns, which change if the content does."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _from_arrays(items: Sequence[Any], preprocess: Preprocess) -> Iterator[NDArray[np.uint8]]:
    from PIL import Image

    for item in items:
        yield preprocess.resize(Image.fromarray(item))
