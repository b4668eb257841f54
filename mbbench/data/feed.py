"""From decoded images to what a network takes. Needs numpy alone: it runs in the measuring process."""

from __future__ import annotations

import os
from collections.abc import Collection, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from mbbench.models import Normalization

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def to_float(images: NDArray[np.uint8], normalization: Normalization) -> NDArray[np.float32]:
    """Normalized float32 (N, 3, H, W), C-contiguous, of uint8 (N, H, W, 3)."""
    import numpy as np

    mean, std = np.array([normalization.mean, normalization.std], np.float32)
    scale: NDArray[np.float32] = 1 / (255 * std)
    offset: NDArray[np.float32] = mean / std
    planes = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).astype(np.float32)
    planes *= scale[:, None, None]
    planes -= offset[:, None, None]
    return planes


def chunk(images: NDArray[np.uint8], normalization: Normalization, batch: int, start: int = 0) -> NDArray[np.float32]:
    """`batch` normalized images from `start` on, those there are over again if they are fewer: one shape for all."""
    import numpy as np

    own = np.asarray(images[start : start + batch])
    return to_float(np.resize(own, (batch, *own.shape[1:])), normalization)


def batches(
    images: NDArray[np.uint8], normalization: Normalization, batch: int, cpus: Collection[int] = ()
) -> Generator[tuple[NDArray[np.float32], int]]:
    """(`chunk` of `images`, how many of it count), one after the other.

    The next chunk is made in a thread while the caller is at work on one; on `cpus`, if any, which whoever is pinned
    to others leaves idle.
    """

    def make(start: int) -> tuple[NDArray[np.float32], int]:
        return chunk(images, normalization, batch, start), min(batch, len(images) - start)

    def move() -> None:
        if cpus and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, cpus)  # of this thread

    first, *others = range(0, len(images), batch)
    with ThreadPoolExecutor(1, initializer=move) as pool:
        ahead = pool.submit(make, first)
        for start in others:
            ready, ahead = ahead.result(), pool.submit(make, start)
            yield ready
        yield ahead.result()
