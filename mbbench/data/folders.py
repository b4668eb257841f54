"""Folders of image files: a folder a class, ImageNet's validation images with their list of labels, or mere photos."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mbbench.data.preprocess import Preprocess
from mbbench.data.sources import Source, stamp, stratified
from mbbench.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".webp"})
_IMAGENET_FILE = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")
_SYNSET = re.compile(r"n\d{8}")
_IMAGENET_CLASSES = 1000
_CHUNK = 64  # images handed to a decoding process at a time


def folder_source(path: Path) -> Source:
    """The source that the folder's layout says it is."""
    files = sorted(entry for entry in path.iterdir() if entry.is_file() and _is_image(entry))
    validation = [entry for entry in files if _IMAGENET_FILE.fullmatch(entry.name)]
    if validation:
        return ImageNetValidation(path, validation)
    return Photos(path, files) if len(files) > 1 else ImageFolder(path)


class _Files(Source):
    """Image files, decoded by all cores."""

    crop_fraction = 0.875

    def decode(self, items: Sequence[Path], preprocess: Preprocess) -> Iterator[NDArray[np.uint8]]:
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        work = partial(_decode_file, preprocess)
        if workers < 2 or len(items) <= _CHUNK:
            yield from map(work, items)
            return
        # Forking a process whose other threads (torch, the progress display) hold locks can hang the child.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, context, initializer=_leave_ctrl_c_to_the_parent) as pool:
            yield from pool.map(work, items, chunksize=_CHUNK)


class ImageFolder(_Files):
    """A folder a class, classes in the order of their names; with train/ or val/ above them, these are the splits.

    val/ (or test/) without train/, and 1000 folders named by synsets, are for testing only.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.name = folder.name or str(folder)
        test = next((folder / name for name in ("val", "test") if (folder / name).is_dir()), None)
        train = folder / "train"
        if test is not None:
            parts = {"train": train, "test": test} if train.is_dir() else {"test": test}
        else:
            parts = {"": folder}  # to be divided
        self._parts = {split: _tree(part) for split, part in parts.items()}
        first = next(iter(parts))
        self._names = sorted({name for _, name in self._parts[first]})
        if len(self._names) < 2:
            count = "images of 1 class" if self._names else "no folders of images"
            raise UsageError(f"{parts[first]} has {count}", "put the images of each class into a folder of its own")
        if len(self._names) == _IMAGENET_CLASSES and all(map(_SYNSET.fullmatch, self._names)) and test is None:
            self._parts = {"test": self._parts[""]}

    def identity(self) -> object:
        files = [path for part in self._parts.values() for path, _ in part]
        return [sorted(self._parts), *([str(path.relative_to(self._folder)), *stamp(path)] for path in files)]

    def classes(self) -> int:
        return len(self._names)

    def items(self, split: str, seed: int) -> tuple[Sequence[Path], NDArray[np.int64]]:
        import numpy as np

        files = self._parts.get(split, self._parts.get(""))
        if files is None:
            raise UsageError(f"{self._folder} is for testing only", "add train/ beside val/, or give --weights FILE")
        numbers = {name: number for number, name in enumerate(self._names)}
        unknown = next((name for _, name in files if name not in numbers), None)
        if unknown is not None:
            raise UsageError(f"{self._folder}/train has no class {unknown}, the test folder has", "give both the same")
        labels = np.array([numbers[name] for _, name in files], np.int64)
        if split in self._parts:
            return [path for path, _ in files], labels
        chosen = stratified(labels, split, seed)
        return [files[i][0] for i in chosen], labels[chosen]


class Photos(_Files):
    """Images in one folder, without labels: to calibrate with, and to see how often two networks agree."""

    def __init__(self, folder: Path, files: list[Path]) -> None:
        self._files = files
        self.name = folder.name or str(folder)

    def identity(self) -> object:
        return [[path.name, *stamp(path)] for path in self._files]

    def classes(self) -> int:
        return 1

    def items(self, split: str, seed: int) -> tuple[Sequence[Path], NDArray[np.int64]]:
        import numpy as np

        none = np.zeros(len(self._files), np.int64)
        chosen = stratified(none, split, seed)
        return [self._files[i] for i in chosen], none[chosen]


class ImageNetValidation(_Files):
    """The 50,000 validation images in one folder; they are all for testing.

    Labels are the place of an image's synset among the 1000 sorted synsets: what published checkpoints use, and what
    val.txt says. The development kit's ILSVRC2012_validation_ground_truth.txt numbers the classes in another order,
    which its meta.mat translates.
    """

    name = "imagenet-val"

    def __init__(self, folder: Path, files: list[Path]) -> None:
        self._folder = folder
        self._files = files
        self._labels = self._read_labels()

    def identity(self) -> object:
        return [self.name, *([path.name, *stamp(path)] for path in self._files), *self._labels]

    def classes(self) -> int:
        return _IMAGENET_CLASSES

    def items(self, split: str, seed: int) -> tuple[Sequence[Path], NDArray[np.int64]]:
        import numpy as np

        if split == "train":
            raise UsageError("ImageNet validation is for testing only", "give --weights FILE")
        return self._files, np.array(self._labels, np.int64)

    def _read_labels(self) -> list[int]:
        """From 0, in the order of the files."""
        pairs, truth = self._folder / "val.txt", self._folder / "ILSVRC2012_validation_ground_truth.txt"
        meta = self._folder / "meta.mat"
        try:
            if pairs.is_file():
                by_name = dict(line.split() for line in pairs.read_text().splitlines() if line.strip())
                by_name = {Path(name).stem: label for name, label in by_name.items()}
                labels = [int(by_name[path.stem]) for path in self._files]
            elif truth.is_file() and meta.is_file():
                numbers = [int(line) for line in truth.read_text().split()]
                places = _devkit_places(meta)
                labels = [places[numbers[int(path.stem[-8:]) - 1]] for path in self._files]
            else:
                raise UsageError(
                    f"{self._folder} has no labels",
                    f"put val.txt, or {truth.name} and meta.mat of the development kit, beside the images",
                )
        except (ValueError, LookupError) as error:
            raise UsageError(f"the labels in {self._folder} do not fit its images ({error})", "check them") from error
        if not all(0 <= label < _IMAGENET_CLASSES for label in labels):
            raise UsageError(f"a label in {self._folder} is outside ImageNet's 1000 classes", "check them")
        return labels


def _devkit_places(meta: Path) -> dict[int, int]:
    """ILSVRC2012_ID -> the place of its synset among the sorted ones. Inner nodes of the hierarchy are no classes."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        rows = loadmat(meta, squeeze_me=True)["synsets"]
        leaves = rows[rows["num_children"] == 0]
        synsets = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in leaves}
    except (MatReadError, ValueError, TypeError, LookupError, NotImplementedError) as error:
        raise UsageError(
            f"{meta} is not the development kit's ({error})", "take it from ILSVRC2012_devkit_t12"
        ) from error
    place = {synset: index for index, synset in enumerate(sorted(synsets.values()))}
    return {number: place[synset] for number, synset in synsets.items()}


def _tree(folder: Path) -> list[tuple[Path, str]]:
    """(file, class) of every image under folder/class/, sorted; hidden ones are left out."""
    return [
        (path, kind.name)
        for kind in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        for path in sorted(kind.rglob("*"))
        if _is_image(path)
    ]


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")


def _decode_file(preprocess: Preprocess, path: Path) -> NDArray[np.uint8]:
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return preprocess.decode(path)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # what damaged files raise
        raise UsageError(f"cannot decode {path} ({error})", "replace or remove the file") from error


def _leave_ctrl_c_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
