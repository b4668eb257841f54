"""Image files: which of a folder's files they are, and how they are decoded on all CPUs."""

from __future__ import annotations

import multiprocessing
import os
import signal
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mbbench import cache
from mbbench.data.broken import Broken
from mbbench.data.preprocess import Preprocess
from mbbench.data.sources import Source, size_and_mtime
from mbbench.errors import UsageError, first_line

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".webp"})
_CHUNK = 64  # number of images that a decoding process receives at a time


class FileSource(Source):
    """A source of image files, which are decoded on all CPUs."""

    crop_fraction = 0.875

    def decode(self, items: Sequence[Path], preprocess: Preprocess) -> Iterator[NDArray[np.uint8] | Broken]:
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        decode_file = partial(_decode_file, preprocess)
        if workers < 2 or len(items) <= _CHUNK:
            yield from map(decode_file, items)
            return
        # Not forked: a forked child can hang on a lock that another thread (torch, the progress display) holds.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, context, initializer=_ignore_ctrl_c) as pool:
            try:
                yield from pool.map(decode_file, items, chunksize=_CHUNK)
            except BrokenProcessPool as error:  # killed by the kernel for its memory, or a crash in an image library
                raise UsageError(
                    f"a process that decodes the images of {self.name} ended unexpectedly",
                    "free memory, or look for a damaged image",
                ) from error

    def split_sizes(self, seed: int) -> tuple[int, int]:
        sizes = [len(self.items(split, seed)[0]) if self.has_split(split) else 0 for split in ("train", "test")]
        return sizes[0], sizes[1]

    @abstractmethod
    def has_split(self, split: str) -> bool:
        """Return whether `items` has images of `split`."""


def images_below(folder: Path) -> Iterator[Path]:
    """Yield what is named like an image in the folder and its subfolders, and is not a folder. Raises `OSError`."""

    def fail(error: OSError) -> None:
        raise error

    for parent, _, names in os.walk(folder, onerror=fail):
        yield from (Path(parent, name) for name in names if is_image(name))


def is_image(name: str) -> bool:
    """Return whether a file has the name of an image and is not hidden."""
    return Path(name).suffix.lower() in _SUFFIXES and not name.startswith(".")


def link_size_and_mtime(path: Path) -> tuple[int, int]:
    """Return what `size_and_mtime` does, of the link itself if it leads nowhere."""
    try:
        return size_and_mtime(path)
    except OSError:
        status = path.lstat()
        return status.st_size, status.st_mtime_ns


def _decode_file(preprocess: Preprocess, path: Path) -> NDArray[np.uint8] | Broken:
    """Return the pixels of an image file, or why it has none. Nothing but a regular file is opened."""
    from PIL import Image, UnidentifiedImageError

    try:
        if (kind := cache.special_kind(path)) is not None:
            return Broken(f"{kind}, not a file")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large images, and of damage that does not matter
            return preprocess.decode(path)
    except UnidentifiedImageError:
        return Broken("not an image" if path.stat().st_size else "empty: 0 bytes")
    except OSError as error:
        return Broken(error.strerror or first_line(error))
    except (SyntaxError, ValueError, Image.DecompressionBombError) as error:  # raised for damaged files
        return Broken(first_line(error))


def _ignore_ctrl_c() -> None:
    """Ignore Ctrl-C in a decoding process; the parent handles it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
