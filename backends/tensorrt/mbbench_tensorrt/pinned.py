"""Page-locked host memory."""

from __future__ import annotations

import ctypes
import math
from typing import TYPE_CHECKING

from mbbench.nvidia.runtime import cuda

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Pinned:
    """A float32 array in page-locked host memory, which the GPU reads and writes directly."""

    array: NDArray[np.float32]

    def __init__(self, shape: tuple[int, ...]) -> None:
        import numpy as np

        count = math.prod(shape)
        self.address = int(cuda("cudaMallocHost", count * ctypes.sizeof(ctypes.c_float)))
        self.array = np.ctypeslib.as_array((ctypes.c_float * count).from_address(self.address)).reshape(shape)

    def free(self) -> None:
        cuda("cudaFreeHost", self.address)
