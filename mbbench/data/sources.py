"""Where labelled images come from: the embedded digits, idx files, and folders of image files."""

from __future__ import annotations

import gzip
import os
import re
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbbench.data.preprocess import Preprocess
from mbbench.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".webp"})
_IMAGENET_FILE = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")
_TEST_SHARE = 0.2
_CHUNK = 64  # images handed to a decoding process at a time


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
    def decode(self, items: Sequence[Any], preprocess: Preprocess) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """(index, pixels) of each item."""


def source_of(name: str) -> Source:
    """The source the user means; raises `UsageError`."""
    if name == "digits":
        return Digits()
    kind, colon, folder = name.partition(":")
    if colon and kind == "fashion-mnist":
        return FashionMnist(_folder(folder))
    path = _folder(name)
    if any(_IMAGENET_FILE.fullmatch(entry.name) for entry in path.iterdir()):
        return ImageNetValidation(path)
    return ImageFolder(path)


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
        return images[chosen], labels[chosen].astype(np.int64)

    def decode(self, items: Sequence[Any], preprocess: Preprocess) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        return _from_arrays(items, preprocess)


class FashionMnist(Source):
    """60,000 + 10,000 labelled 28x28 images (Xiao et al. 2017) as idx files."""

    name = "fashion-mnist"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def identity(self) -> object:
        files = [self._file(split, what) for split in ("train", "t10k") for what in ("images-idx3", "labels-idx1")]
        return [self.name, *(_stamp(path) for path in files)]

    def classes(self) -> int:
        return 10

    def items(self, split: str, seed: int) -> tuple[Sequence[Any], NDArray[np.int64]]:
        import numpy as np

        prefix = "t10k" if split == "test" else "train"
        images = read_idx(self._file(prefix, "images-idx3"), dimensions=3)
        labels = read_idx(self._file(prefix, "labels-idx1"), dimensions=1)
        if len(images) != len(labels):
            raise UsageError(
                f"{self._folder} has {len(images)} {prefix} images and {len(labels)} labels", "fetch the files again"
            )
        if labels.size and labels.max() >= self.classes():
            raise UsageError(f"{self._folder} has a label {labels.max()}, Fashion-MNIST has 0 to 9", "check the files")
        return images, labels.astype(np.int64)

    def decode(self, items: Sequence[Any], preprocess: Preprocess) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        return _from_arrays(items, preprocess)

    def _file(self, split: str, what: str) -> Path:
        for name in (f"{split}-{what}-ubyte", f"{split}-{what}-ubyte.gz"):
            if (self._folder / name).is_file():
                return self._folder / name
        raise UsageError(f"{self._folder} lacks {split}-{what}-ubyte[.gz]", "name the folder with the four idx files")


class _Files(Source):
    """Image files, decoded by all cores."""

    crop_fraction = 0.875

    def decode(self, items: Sequence[Any], preprocess: Preprocess) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        workers = min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1, len(items))
        work = partial(_decode_file, preprocess)
        if workers < 2 or len(items) < _CHUNK:
            yield from enumerate(map(work, items))
            return
        with ProcessPoolExecutor(workers) as pool:
            yield from enumerate(pool.map(work, items, chunksize=_CHUNK))


class ImageFolder(_Files):
    """A folder a class; with train/ and val/ (or test/) above them, these are the splits."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.name = folder.name
        tests = [folder / name for name in ("val", "test") if (folder / name).is_dir()]
        self._splits = {"train": folder / "train", "test": tests[0]} if tests and (folder / "train").is_dir() else None

    def identity(self) -> object:
        root = self._folder
        return [[str(path.relative_to(root)), *_stamp(path)] for part in self._parts() for path, _ in _tree(part)]

    def classes(self) -> int:
        return len(_class_names(self._parts()[0]))

    def items(self, split: str, seed: int) -> tuple[Sequence[Any], NDArray[np.int64]]:
        import numpy as np

        names = _class_names(self._parts()[0])
        part = self._folder if self._splits is None else self._splits[split]
        files = _tree(part)
        unknown = next((name for _, name in files if name not in names), None)
        if unknown is not None:
            raise UsageError(f"{part} has a class {unknown} that {self._parts()[0]} has not", "give both the same folders")
        labels = np.array([names.index(name) for _, name in files], np.int64)
        chosen = range(len(files)) if self._splits is not None else stratified(labels, split, seed).tolist()
        return [files[i][0] for i in chosen], labels[list(chosen)]

    def _parts(self) -> list[Path]:
        return [self._folder] if self._splits is None else [self._splits["train"], self._splits["test"]]


class ImageNetValidation(_Files):
    """The 50,000 validation images in one folder; they are all for testing."""

    name = "imagenet-val"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files = sorted(path for path in folder.iterdir() if _IMAGENET_FILE.fullmatch(path.name))

    def identity(self) -> object:
        return [self.name, *([path.name, *_stamp(path)] for path in self._files), *self._labels()]

    def classes(self) -> int:
        return 1000

    def items(self, split: str, seed: int) -> tuple[Sequence[Any], NDArray[np.int64]]:
        import numpy as np

        if split == "train":
            raise UsageError("ImageNet validation is for testing only", "give --weights FILE")
        return self._files, np.array(self._labels(), np.int64)

    def _labels(self) -> list[int]:
        """From 0, in the order of the files."""
        truth, pairs = self._folder / "ILSVRC2012_validation_ground_truth.txt", self._folder / "val.txt"
        try:
            if truth.is_file():
                of_all = [int(line) - 1 for line in truth.read_text().split()]
                labels = [of_all[int(path.stem[-8:]) - 1] for path in self._files]
            elif pairs.is_file():
                by_name = dict(line.split() for line in pairs.read_text().splitlines() if line.strip())
                labels = [int(by_name[path.name]) for path in self._files]
            else:
                raise UsageError(
                    f"{self._folder} has no labels", f"put {truth.name} or {pairs.name} beside the images"
                )
        except (ValueError, IndexError, KeyError) as error:
            raise UsageError(f"the labels in {self._folder} do not fit its images ({error})", "check them") from error
        if not all(0 <= label < self.classes() for label in labels):
            raise UsageError(f"a label in {self._folder} is outside ImageNet's 1000 classes", "check them")
        return labels


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
    """The unsigned bytes of an idx file (LeCun's format for MNIST): two zeros, type 8, the dimensions, big-endian sizes."""
    import numpy as np

    remedy = "fetch the file again"
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"cannot read {path} ({error})", remedy) from error
    header = 4 + 4 * dimensions
    if content[:4] != bytes((0, 0, 8, dimensions)) or len(content) < header:
        raise UsageError(f"{path} is no idx file of {dimensions} dimensions", remedy)
    shape = np.frombuffer(content[4:header], ">u4").astype(int)
    if len(content) != header + int(shape.prod()):
        raise UsageError(f"{path} holds {len(content) - header} bytes, its header says {shape.prod()}", remedy)
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _folder(name: str) -> Path:
    path = Path(name).expanduser()
    if not path.is_dir():
        raise UsageError(f"there is no data folder {name}", "name a folder of images, fashion-mnist:DIR, or digits")
    return path


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _class_names(folder: Path) -> list[str]:
    names = sorted({name for _, name in _tree(folder)})
    if len(names) < 2:
        raise UsageError(
            f"{folder} has images of {len(names)} classes", "put the images of each class into a folder of its own"
        )
    return names


@cache
def _tree(folder: Path) -> list[tuple[Path, str]]:
    """(file, class) of every image under folder/class/, sorted."""
    return [
        (path, kind.name)
        for kind in sorted(path for path in folder.iterdir() if path.is_dir())
        for path in sorted(kind.rglob("*"))
        if path.suffix.lower() in _SUFFIXES
    ]


def _decode_file(preprocess: Preprocess, path: Path) -> NDArray[np.uint8]:
    try:
        return preprocess.decode(path)
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow's decoders raise for damaged files
        raise UsageError(f"cannot decode {path} ({error})", "replace or remove the file") from error


def _from_arrays(items: Sequence[Any], preprocess: Preprocess) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    from PIL import Image

    for index, item in enumerate(items):
        yield index, preprocess.resize(Image.fromarray(item))
