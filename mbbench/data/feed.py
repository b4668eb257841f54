"""From decoded images to what a network takes. Needs numpy alone: it runs in the measuring process."""

from __future__ import annotations

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
