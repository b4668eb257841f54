"""Conversion of decoded images to network inputs. It needs only numpy, because it runs in the measuring process."""

from __future__ import annotations

import os
from collections.abc import Collection, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from mbbench.spec import Preprocessing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def to_float(images: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Convert uint8 images (N, H, W, 3), in RGB, to normalized float32 (N, 3, H, W), C-contiguous."""
    import numpy as np

    order = slice(None, None, -1) if preprocessing.channels == "bgr" else slice(None)
    mean, std = np.array([preprocessing.mean[order], preprocessing.std[order]], np.float32)
    scale: NDArray[np.float32] = 1 / (255 * std)
    offset: NDArray[np.float32] = mean / std
    planes = np.ascontiguousarray(images.transpose(0, 3, 1, 2)[:, order]).astype(np.float32)
    planes *= scale[:, None, None]
    planes -= offset[:, None, None]
    return planes


def full_batch(
    images: NDArray[np.uint8], preprocessing: Preprocessing, batch: int, start: int = 0
) -> NDArray[np.float32]:
    """Return `batch` normalized images, beginning with image `start`.

    If fewer images are left, they are repeated, so that every batch has the same shape.
    """
    import numpy as np

    selected = np.asarray(images[start : start + batch])
    return to_float(np.resize(selected, (batch, *selected.shape[1:])), preprocessing)


def batches(
    images: NDArray[np.uint8], preprocessing: Preprocessing, batch: int, cpus: Collection[int] = ()
) -> Generator[tuple[NDArray[np.float32], int]]:
    """Yield all images in batches of the same shape: (`full_batch`, number of images in it that are not repeats).

    A thread prepares the next batch while the caller works on the current one. The thread runs on `cpus` if that is not
    empty: CPUs that the caller, pinned to others, leaves idle.
    """

    def prepare(start: int) -> tuple[NDArray[np.float32], int]:
        return full_batch(images, preprocessing, batch, start), min(batch, len(images) - start)

    def pin_thread() -> None:
        if cpus and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, cpus)  # 0: the calling thread

    first, *remaining = range(0, len(images), batch)
    with ThreadPoolExecutor(1, initializer=pin_thread) as pool:
        pending = pool.submit(prepare, first)
        for start in remaining:
            ready, pending = pending.result(), pool.submit(prepare, start)
            yield ready
        yield pending.result()
