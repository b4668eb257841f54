"""Preprocessing: an image file to RGB pixels of the network's size."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, BinaryIO

from mbbench.spec import Interpolation, Size, content_key

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

# Pillow goes by the content, not by the name. Some of its formats start other programs, such as EPS and Ghostscript.
_FORMATS = ("BMP", "DIB", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_CODE = 1  # version of this file; increase it if the same image yields different pixels


@dataclass(frozen=True, slots=True)
class Preprocess:
    """Conversion to RGB, resizing and center crop: what `spec.Preprocessing` says before normalization.

    The image is resized, with antialiasing, until `size` is the share `crop_fraction` of the largest part of that shape
    which can be cut out of it. A `crop_fraction` of 0.875 is customary for ImageNet (256 to 224); 1.0 keeps all of a
    square image for a square input.
    """

    size: Size
    crop_fraction: float
    interpolation: Interpolation = "bilinear"

    @property
    def fingerprint(self) -> str:
        """A key that changes if the same image may yield different pixels."""
        height, width = self.size
        side = height if height == width else self.size  # keeps the keys of before inputs that are not square
        size = {"resolution": side, "crop_fraction": self.crop_fraction}
        other = () if self.interpolation == "bilinear" else (self.interpolation,)  # keeps the keys of before this field
        return content_key(size, metadata.version("pillow"), _CODE, *other)

    def decode(self, file: Path | BinaryIO) -> NDArray[np.uint8]:
        """Return the pixels (H, W, 3) of an encoded image. Raises `OSError` if `file` is not an image."""
        from PIL import Image

        with Image.open(file, formats=_FORMATS) as image:
            return self.resize(image)

    def resize(self, image: Image.Image) -> NDArray[np.uint8]:
        """Return the pixels (H, W, 3) of a decoded image of any mode and size."""
        import numpy as np
        from PIL import Image

        image = image.convert("RGB")
        height, width = self.size
        least = [round(side / self.crop_fraction) for side in (width, height)]
        scale = max(needed / side for needed, side in zip(least, image.size, strict=True))
        resized = [max(round(side * scale), needed) for needed, side in zip(least, image.size, strict=True)]
        image = image.resize((resized[0], resized[1]), Image.Resampling[self.interpolation.upper()])
        left, top = (resized[0] - width) // 2, (resized[1] - height) // 2
        return np.asarray(image.crop((left, top, left + width, top + height)))
