"""Preprocessing: an image file to RGB pixels of the network's resolution."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, BinaryIO

from mbbench.spec import Interpolation, content_key

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

_CODE = 1  # version of this file; increase it if the same image yields different pixels


@dataclass(frozen=True, slots=True)
class Preprocess:
    """Conversion to RGB, resizing and center crop: what `spec.Preprocessing` says before normalization.

    The shorter side is resized to resolution / crop_fraction, with antialiasing. A `crop_fraction` of 0.875 is
    customary for ImageNet (256 to 224); 1.0 keeps all of a square image.
    """

    resolution: int
    crop_fraction: float
    interpolation: Interpolation = "bilinear"

    @property
    def fingerprint(self) -> str:
        """A key that changes if the same image may yield different pixels."""
        size = {"resolution": self.resolution, "crop_fraction": self.crop_fraction}
        other = () if self.interpolation == "bilinear" else (self.interpolation,)  # keeps the keys of before this field
        return content_key(size, metadata.version("pillow"), _CODE, *other)

    def decode(self, file: Path | BinaryIO) -> NDArray[np.uint8]:
        """Return the pixels (R, R, 3) of an encoded image. Raises `OSError` if `file` is not an image."""
        from PIL import Image

        with Image.open(file) as image:
            return self.resize(image)

    def resize(self, image: Image.Image) -> NDArray[np.uint8]:
        """Return the pixels (R, R, 3) of a decoded image of any mode and size."""
        import numpy as np
        from PIL import Image

        image = image.convert("RGB")
        shorter = round(self.resolution / self.crop_fraction)
        scale = shorter / min(image.size)
        width, height = (max(round(side * scale), shorter) for side in image.size)
        image = image.resize((width, height), Image.Resampling[self.interpolation.upper()])
        left, top = (width - self.resolution) // 2, (height - self.resolution) // 2
        return np.asarray(image.crop((left, top, left + self.resolution, top + self.resolution)))
