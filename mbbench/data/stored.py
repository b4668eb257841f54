"""Decoded splits in the cache: each is decoded once, with its broken images left out and named.

KEY.images.npy, KEY.labels.npy    a split without broken images; the key is its fingerprint
KEY.broken.json                   the broken images of a split: position among its images -> cause
OTHER.images.npy, ...             the rest of such a split; the key OTHER holds KEY and these positions
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from mbbench import cache
from mbbench.data import broken
from mbbench.data.broken import Broken
from mbbench.data.preprocess import Preprocess
from mbbench.data.sources import Source
from mbbench.errors import UsageError
from mbbench.spec import Size, content_key

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SEED = 20170417  # the date on which the MobileNet paper was published
_OnProgress = Callable[[int, int], None] | None


@dataclass(frozen=True, slots=True)
class Request:
    """Which images of a source to decode, and how. `limit`: the largest number; None: all of the split."""

    source: Source
    split: str
    limit: int | None
    preprocess: Preprocess

    @property
    def key(self) -> str:
        """A key of the images and of their pixels."""
        return content_key(self.source.identity(), self.split, self.limit, _SEED, self.preprocess.fingerprint)

    def items(self) -> tuple[Sequence[Any], NDArray[np.int64]]:
        """Return the chosen items of the source, and their labels. Raises `UsageError` if there are none."""
        import numpy as np

        items, labels = self.source.items(self.split, _SEED)
        if self.limit is not None and self.limit < len(items):
            chosen = np.sort(np.random.default_rng(_SEED).choice(len(items), self.limit, replace=False))
            items, labels = [items[i] for i in chosen], labels[chosen]
        if len(items) == 0:
            raise UsageError(
                f"{self.source.name} has no {self.split} images", "add images, or give another data folder"
            )
        return items, labels


@dataclass(frozen=True, slots=True)
class Stored:
    """The files of a decoded split. `broken`: the names of the images that are left out."""

    images: Path
    labels: Path
    count: int
    fingerprint: str
    broken: tuple[str, ...] = ()


def load(request: Request, *, skip_broken: bool, on_progress: _OnProgress) -> Stored:
    """Return the decoded split, from the cache if it is there.

    Raises `UsageError` that lists all broken images, unless `skip_broken` leaves them out and some images are left.
    """
    key = request.key
    complete = _open(key, request.preprocess.size)
    if complete is not None:
        return complete
    causes = _known_causes(request, key)
    if causes is None or _open(_fingerprint(key, causes), request.preprocess.size) is None:
        causes = _decode(request, key, on_progress)
    if causes and not skip_broken:
        raise _error(request, causes)
    stored = _open(_fingerprint(key, causes), request.preprocess.size)
    assert stored is not None
    if not causes:
        return stored
    items, _ = request.items()
    names = tuple(request.source.path_of(items[index]) for index in causes)
    if stored.count == 0:
        raise UsageError(f"no {request.split} image of {request.source.name} can be decoded", "give other images")
    return Stored(stored.images, stored.labels, stored.count, stored.fingerprint, names)


def split_sizes(source: Source) -> tuple[int, int] | None:
    """Return the number of training and of test images in a folder, None for other sources."""
    return source.split_sizes(_SEED)


def _fingerprint(key: str, causes: dict[int, str]) -> str:
    """Return the key of what is left of the split `key` without its broken images."""
    return content_key(key, sorted(causes)) if causes else key


def _path(key: str, what: str) -> Path:
    return cache.root() / "data" / f"{key}.{what}"


def _open(key: str, size: Size) -> Stored | None:
    """Return the cached files, or None if they are missing or damaged."""
    import numpy as np

    images, labels = _path(key, "images.npy"), _path(key, "labels.npy")
    try:
        pixels, numbers = np.load(images, mmap_mode="r"), np.load(labels)
    except (OSError, ValueError, EOFError):
        return None
    valid_pixels = pixels.dtype == np.uint8 and pixels.shape == (len(pixels), *size, 3)
    valid_numbers = numbers.dtype == np.int64 and numbers.shape == pixels.shape[:1]
    return Stored(images, labels, len(pixels), key) if valid_pixels and valid_numbers else None


def _known_causes(request: Request, key: str) -> dict[int, str] | None:
    """Return the broken images that the cache knows, or None if it knows none or one of them can be decoded now.

    A file can become readable without a change of its size and modification time, such as by `chmod`.
    """
    try:
        causes = msgspec.json.decode(_path(key, "broken.json").read_bytes(), type=dict[int, str])
        items, _ = request.items()
        suspects = [items[index] for index in causes]
    except (OSError, msgspec.MsgspecError, IndexError):
        return None
    still_broken = all(isinstance(result, Broken) for result in request.source.decode(suspects, request.preprocess))
    return causes if causes and still_broken else None


def _decode(request: Request, key: str, on_progress: _OnProgress) -> dict[int, str]:
    """Decode the split to the cache, and return its broken images: position -> cause."""
    import numpy as np

    items, labels = request.items()
    causes: dict[int, str] = {}
    with _staged(key) as staged:
        with cache.atomic(staged) as temporary, temporary.open("wb") as file:
            _write_header(file, len(items), request.preprocess.size)
            for index, result in enumerate(request.source.decode(items, request.preprocess)):
                if isinstance(result, Broken):
                    causes[index] = result.cause
                else:  # not through a memory map: on a full disk, writing to a map kills the process
                    file.write(result.tobytes())
                if on_progress is not None:
                    on_progress(index + 1, len(items))
            file.seek(0)
            _write_header(file, len(items) - len(causes), request.preprocess.size)
        fingerprint = _fingerprint(key, causes)
        with cache.atomic(_path(fingerprint, "labels.npy")) as temporary, temporary.open("wb") as file:
            np.save(file, np.delete(labels, list(causes)).astype(np.int64))
        staged.replace(_path(fingerprint, "images.npy"))
    if causes:
        with cache.atomic(_path(key, "broken.json")) as temporary:
            temporary.write_bytes(msgspec.json.encode(causes))
    return causes


@contextmanager
def _staged(key: str) -> Iterator[Path]:
    """Yield a path for images whose fingerprint is known only when all are decoded; remove it if it is left."""
    path = _path(key, f"{os.getpid()}.part")
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _write_header(file: BinaryIO, count: int, size: Size) -> None:
    """Write the header of a .npy file of uint8 images; NumPy pads it to the same length for every count."""
    import numpy as np

    header = {"descr": "|u1", "fortran_order": False, "shape": (count, *size, 3)}
    np.lib.format.write_array_header_1_0(file, header)


def _error(request: Request, causes: dict[int, str]) -> UsageError:
    """Return the error that lists the broken images.

    If mbbench divided the folder, those of its other split are listed too: training would be stopped by them next.
    """
    source = request.source
    items, _ = request.items()
    files = [(source.path_of(items[index]), Broken(cause)) for index, cause in causes.items()]
    total = len(items)
    if source.is_divided and request.limit is None:
        others, _ = source.items("test" if request.split == "train" else "train", _SEED)
        results = zip(others, source.decode(others, request.preprocess), strict=True)
        files += [(source.path_of(item), result) for item, result in results if isinstance(result, Broken)]
        total += len(others)
    return broken.error(source.name, sorted(files, key=lambda entry: entry[0]), total)
