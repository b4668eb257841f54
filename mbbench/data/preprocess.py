"""The one path from an image file to pixels of the right size."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib import metadata
from typing import TYPE_CHECKING, BinaryIO

from mbbench.spec import content_key

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

_CODE = 1  # raise it when this file turns the same image into other pixels


@dataclass(frozen=True, slots=True)
class Preprocess:
    """RGB; the shorter side to resolution / crop_fraction, bilinear with antialiasing; the centre cut out.

    `crop_fraction` 0.875 is ImageNet's custom (256 to 224); 1.0 keeps the whole of a square image.
    """

    resolution: int
    crop_fraction: float

    @property
    def fingerprint(self) -> str:
        return content_key(asdict(self), metadata.version("pillow"), _CODE)

    def decode(self, file: Path | BinaryIO) -> NDArray[np.uint8]:
        """Pixels (R, R, 3) of an encoded image; raises `OSError` if it is none."""
        from PIL import Image

        with Image.open(file) as image:
            return self.resize(image)

    def resize(self, image: Image.Image) -> NDArray[np.uint8]:
        import numpy as np
        from PIL import Image

        image = image.convert("RGB")
        shorter = round(self.resolution / self.crop_fraction)
        scale = shorter / min(image.size)
        width, height = (max(round(side * scale), shorter) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        left, top = (width - self.resolution) // 2, (height - self.resolution) // 2
        return np.asarray(image.crop((left, top, left + self.resolution, top + self.resolution)))
