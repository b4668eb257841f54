"""Sources that are folders of image files: one folder per class, ImageNet's validation set, or unlabeled photos."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mbbench.data.files import FileSource, images_below, is_image, link_size_and_mtime
from mbbench.data.sources import Source, stratified_indices
from mbbench.errors import UsageError
from mbbench.models import imagenet

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_IMAGENET_FILE = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")
_SYNSET = re.compile(r"n\d{8}")
_IMAGENET_CLASSES = 1000


def folder_source(path: Path) -> Source:
    """Return the source that matches the layout of the folder.

    Files with the names of ImageNet's validation images are that set, two or more other images are unlabeled photos,
    and anything else is expected to be one folder per class. Raises `UsageError` if the folder has none of these.
    """
    files = sorted(entry for entry in path.iterdir() if is_image(entry.name) and not entry.is_dir())
    validation = [entry for entry in files if _IMAGENET_FILE.fullmatch(entry.name)]
    if validation:
        return ImageNetValidation(path, validation)
    return Photos(path, files) if len(files) > 1 else ImageFolder(path)


class ImageFolder(FileSource):
    """One folder per class; the classes are numbered in the order of their names.

    If the folders are in train/ and val/ (or test/), these are the splits. val/ (or test/) without train/, and 1000
    folders named after synsets (ImageNet's validation set), are test sets without a training split.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.name = folder.name or str(folder)
        test = next((folder / name for name in ("val", "test") if (folder / name).is_dir()), None)
        train = folder / "train"
        if test is not None:
            parts = {"train": train, "test": test} if train.is_dir() else {"test": test}
        else:
            parts = {"": folder}  # one set that `items` divides
        self._parts = {split: _labeled_files(part) for split, part in parts.items()}
        first = next(iter(parts))
        self._names = sorted({name for _, name in self._parts[first]})
        if len(self._names) < 2:
            count = "only one folder of images" if self._names else "no folders of images"
            raise UsageError(f"{parts[first]} has {count}", "put the images of each class into a separate folder")
        if len(self._names) == _IMAGENET_CLASSES and all(map(_SYNSET.fullmatch, self._names)) and test is None:
            self._parts = {"test": self._parts[""]}
        self.is_divided = "" in self._parts

    def has_split(self, split: str) -> bool:
        return self.is_divided or split in self._parts

    def identity(self) -> object:
        files = [path for part in self._parts.values() for path, _ in part]
        return [
            sorted(self._parts),
            *([str(path.relative_to(self._folder)), *link_size_and_mtime(path)] for path in files),
        ]

    def classes(self) -> int:
        return len(self._names)

    def class_names(self) -> tuple[str, ...]:
        return tuple(self._names)

    def items(self, split: str, seed: int) -> tuple[Sequence[Path], NDArray[np.int64]]:
        import numpy as np

        files = self._parts.get(split, self._parts.get(""))
        if files is None:
            raise UsageError(
                f"{self._folder} has no training images", "add train/ next to val/, or give --weights FILE"
            )
        numbers = {name: number for number, name in enumerate(self._names)}
        unknown = next((name for _, name in files if name not in numbers), None)
        if unknown is not None:
            raise UsageError(
                f"class {unknown} is in the test folder but not in {self._folder}/train",
                "give both folders the same classes",
            )
        labels = np.array([numbers[name] for _, name in files], np.int64)
        if split in self._parts:
            return [path for path, _ in files], labels
        chosen = stratified_indices(labels, split, seed)
        return [files[i][0] for i in chosen], labels[chosen]


class Photos(FileSource):
    """Images in one folder, without labels: enough for calibration and for the agreement of two networks."""

    is_divided = True

    def __init__(self, folder: Path, files: list[Path]) -> None:
        self._files = files
        self.name = folder.name or str(folder)

    def has_split(self, split: str) -> bool:
        return True

    def identity(self) -> object:
        return [[path.name, *link_size_and_mtime(path)] for path in self._files]

    def classes(self) -> int:
        return 1

    def items(self, split: str, seed: int) -> tuple[Sequence[Path], NDArray[np.int64]]:
        import numpy as np

        labels = np.zeros(len(self._files), np.int64)
        chosen = stratified_indices(labels, split, seed)
        return [self._files[i] for i in chosen], labels[chosen]


class ImageNetValidation(FileSource):
    """ImageNet's 50,000 validation images, or a part of them, in one folder; a test set without a training split.

    A label is the position of the image's synset among the 1000 sorted synsets, as in published checkpoints and in
    val.txt. The development kit's ILSVRC2012_validation_ground_truth.txt numbers the classes in another order; its
    meta.mat maps these numbers to synsets.
    """

    name = "imagenet-val"

    def __init__(self, folder: Path, files: list[Path]) -> None:
        self._folder = folder
        self._files = files
        self._labels = self._read_labels()

    def has_split(self, split: str) -> bool:
        return split == "test"

    def identity(self) -> object:
        return [self.name, *([path.name, *link_size_and_mtime(path)] for path in self._files), *self._labels]

    def classes(self) -> int:
        return _IMAGENET_CLASSES

    def class_names(self) -> tuple[str, ...]:
        return imagenet.synsets()

    def items(self, split: str, seed: int) -> tuple[Sequence[Path], NDArray[np.int64]]:
        import numpy as np

        if split == "train":
            raise UsageError("ImageNet's validation set has no training images", "give --weights FILE")
        return self._files, np.array(self._labels, np.int64)

    def _read_labels(self) -> list[int]:
        """Return the labels, from 0, in the order of the files. Raises `UsageError`."""
        pairs = self._folder / "val.txt"
        truth = self._folder / "ILSVRC2012_validation_ground_truth.txt"
        meta = self._folder / "meta.mat"
        try:
            if pairs.is_file():
                by_name = dict(line.split() for line in pairs.read_text().splitlines() if line.strip())
                by_name = {Path(name).stem: label for name, label in by_name.items()}
                labels = [int(by_name[path.stem]) for path in self._files]
            elif truth.is_file() and meta.is_file():
                numbers = [int(line) for line in truth.read_text().split()]
                positions = _synset_positions(meta)
                labels = [positions[numbers[int(path.stem[-8:]) - 1]] for path in self._files]
            else:
                raise UsageError(
                    f"{self._folder} has no labels",
                    f"put val.txt, or {truth.name} and meta.mat of the development kit, next to the images",
                )
        except (ValueError, LookupError) as error:
            raise UsageError(
                f"the labels in {self._folder} do not match its images ({error})", "correct the file of labels"
            ) from error
        invalid = next((label for label in labels if not 0 <= label < _IMAGENET_CLASSES), None)
        if invalid is not None:
            raise UsageError(f"a label in {self._folder} is not 0 to 999: {invalid}", "correct the file of labels")
        return labels


def _synset_positions(meta: Path) -> dict[int, int]:
    """Return ILSVRC2012_ID -> position of its synset among the sorted synsets.

    Inner nodes of the hierarchy are left out: they are not classes. Raises `UsageError`.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        rows = loadmat(meta, squeeze_me=True)["synsets"]
        leaves = rows[rows["num_children"] == 0]
        synsets = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in leaves}
    except (MatReadError, ValueError, TypeError, LookupError, NotImplementedError) as error:
        raise UsageError(
            f"{meta} is not from ImageNet's development kit ({error})", "copy it from ILSVRC2012_devkit_t12"
        ) from error
    positions = {synset: position for position, synset in enumerate(sorted(synsets.values()))}
    return {number: positions[synset] for number, synset in synsets.items()}


def _labeled_files(folder: Path) -> list[tuple[Path, str]]:
    """Return (file, class) of every image under folder/class/, sorted, without hidden files and folders."""
    return [
        (path, class_folder.name)
        for class_folder in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        for path in sorted(images_below(class_folder))
    ]
