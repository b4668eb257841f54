"""Data sets: images and labels, decoded once and cached as uint8 arrays.

A data set is named on the command line as:
    digits              scikit-learn's 8x8 digits, which need no download
    fashion-mnist:DIR   the four idx files, gzipped or not
    DIR                 a folder per class: DIR/class/image.jpg, or DIR/train/class/... and DIR/val/class/...
    DIR                 images without labels: DIR/image.jpg
    DIR                 ImageNet's validation set: DIR/n01440764/... (1000 synsets), DIR/val/n01440764/..., or
                        DIR/ILSVRC2012_val_00000001.JPEG ... next to val.txt (`file label`, labels from 0) or to
                        ILSVRC2012_validation_ground_truth.txt and meta.mat of the development kit

`digits` never means a folder, and `random` is reserved for --calibration: write ./digits and ./random for folders.

The test split is val/ or test/, the idx files' test set, or all of ImageNet's validation set. Otherwise it is a fifth
of the images, stratified by class and drawn with a fixed seed. The training split is the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mbbench.data import broken, stored
from mbbench.data.folders import folder_source
from mbbench.data.preprocess import Preprocess
from mbbench.data.sources import Digits, FashionMnist, Source
from mbbench.errors import UsageError
from mbbench.families import Family
from mbbench.models import default_preprocessing
from mbbench.profile import NAME_DATA, parse_data_name
from mbbench.result import DataInfo, LabelsInfo, SplitSizes
from mbbench.spec import Preprocessing, Size, content_key
from mbbench.spec.bounds import BOUNDS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Split = Literal["train", "test"]


@dataclass(frozen=True, slots=True)
class Dataset:
    """One split of a data set on disk: `images` uint8 (N, H, W, 3) and `labels` int64 (N,), as .npy files.

    `preprocessing`: how the pixels become inputs; None: by the default of the network that they are for. `labeling`:
    how the labels became outputs of a network (`data.labels.map_labels`); None: they are numbers of `class_names`.
    `skipped`: the names of broken images that are left out, `split`: which of the two splits this is, and `splits`: the
    number of images in both, of a folder.
    """

    name: str
    images: Path
    labels: Path
    count: int
    classes: int
    fingerprint: str  # identifies the pixels and labels: source, split, subset and preprocessing
    preprocess: str  # fingerprint of the preprocessing
    preprocessing: Preprocessing | None = None
    class_names: tuple[str, ...] = ()
    labeling: LabelsInfo | None = None
    split: Split = "test"
    skipped: tuple[str, ...] = ()
    splits: SplitSizes | None = None

    @property
    def info(self) -> DataInfo:
        """The description of this split that a result records."""
        return DataInfo(
            name=self.name,
            images=self.count,
            classes=self.classes,
            fingerprint=self.fingerprint,
            preprocess=self.preprocess,
            skipped=len(self.skipped),
            splits=self.splits,
        )

    @property
    def statements(self) -> list[str]:
        """What the user should know about a folder, in sentences: its splits, and the images that are left out."""
        texts = [] if self.splits is None else [f"{self.name}: {self.splits.text}"]
        if self.skipped:
            texts.append(broken.statement(self.name, self.split, self.skipped, self.count + len(self.skipped)))
        return texts

    def preprocessing_for(self, family: Family) -> Preprocessing:
        """Return how the pixels become inputs of a network of `family`."""
        return self.preprocessing or default_preprocessing(family)

    def special_preprocessing(self, family: Family) -> Preprocessing | None:
        """Return the preprocessing, as keys and records hold it: None if it is the default of `family`."""
        chosen = self.preprocessing_for(family)
        return None if chosen == default_preprocessing(family) else chosen

    def specialties(self, family: Family) -> tuple[object, ...]:
        """Return what a key must hold besides the fingerprint: nothing with default preprocessing and labels."""
        labels_key = None if self.labeling is None else self.labeling.key
        return tuple(part for part in (self.special_preprocessing(family), labels_key) if part)

    def key(self, family: Family) -> str:
        """Return a key of the inputs and labels that a network of `family` gets; the fingerprint, if all is default."""
        special = self.specialties(family)
        return content_key(self.fingerprint, *special) if special else self.fingerprint

    def arrays(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return the images, memory-mapped, and the labels."""
        import numpy as np

        return np.load(self.images, mmap_mode="r"), np.load(self.labels)


def load_split(
    name: str,
    size: Size,
    split: Split,
    *,
    limit: int | None = None,
    preprocessing: Preprocessing | None = None,
    skip_broken: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Return a split of the data set `name`, decoded at `size`, from the cache if it is there.

    `limit` is the largest number of images; if there are more, a seeded random subset is taken. For `preprocessing`,
    see `Dataset`. `skip_broken` leaves out images that cannot be decoded, so that there may be fewer than `limit`.
    `on_progress` is called with the number of images decoded so far and the total. Raises `UsageError` if the data set
    is missing, empty or corrupt; it names all broken images.
    """
    if limit is not None:
        BOUNDS["images"].require(limit)
    with _reading(name):
        source = _source(name)
        if preprocessing is not None and preprocessing.crop == source.crop_fraction:
            preprocessing = replace(preprocessing, crop=None)  # the same pixels as without it
        preprocess = _pixels(size, source, preprocessing)
        request = stored.Request(source, split, limit, preprocess)
        decoded = stored.load(request, skip_broken=skip_broken, on_progress=on_progress)
        sizes = stored.split_sizes(source)
    return Dataset(
        name=source.name,
        images=decoded.images,
        labels=decoded.labels,
        count=decoded.count,
        classes=source.classes(),
        fingerprint=decoded.fingerprint,
        preprocess=preprocess.fingerprint,
        preprocessing=preprocessing,
        class_names=source.class_names(),
        split=split,
        skipped=decoded.broken,
        splits=None if sizes is None else SplitSizes(train=sizes[0], test=sizes[1]),
    )


def count_classes(name: str) -> int:
    """Return the number of classes of the data set `name`; 1: it has no labels. Nothing is decoded.

    Raises `UsageError` if the data set is missing.
    """
    with _reading(name):
        source = _source(name)
        source.require_files()
        return source.classes()


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """Turn the system's errors into a `UsageError`: broken links, folders without permission, deleted files."""
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"cannot read {error.filename or name} ({error.strerror or error})",
            "check that it exists and that you may read it",
        ) from error


def _pixels(size: Size, source: Source, preprocessing: Preprocessing | None) -> Preprocess:
    if preprocessing is None:
        return Preprocess(size, source.crop_fraction)
    return Preprocess(size, preprocessing.crop or source.crop_fraction, preprocessing.interpolation)


def _source(name: str) -> Source:
    """Return the source that `name` means, as decided by `parse_data_name`. Raises `UsageError`."""
    kind, folder = parse_data_name(name)
    if folder is None:
        if kind == "digits":
            return Digits()
        raise UsageError(f"{name} is not a data set, but a value of --calibration", f"give ./{name} for a folder")
    if not folder.is_dir():
        raise UsageError(f"there is no data folder {str(folder)!r}", NAME_DATA)
    return FashionMnist(folder) if kind == "fashion-mnist" else folder_source(folder)
