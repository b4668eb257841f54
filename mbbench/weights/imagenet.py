"""`--weights imagenet`: checkpoints that are published with a checksum, downloaded once."""

from __future__ import annotations

import http.client
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from mbbench import cache
from mbbench.errors import UsageError
from mbbench.spec import Family, ModelSpec

_CHUNK = 1 << 20
_TIMEOUT_S = 30.0
_KERAS = "https://storage.googleapis.com/tensorflow/keras-applications/mobilenet"
_KERAS_ALPHAS = {1.0: "1_0", 0.75: "7_5", 0.5: "5_0", 0.25: "2_5"}
_KERAS_RESOLUTIONS = (224, 192, 160, 128)


@dataclass(frozen=True, slots=True)
class Download:
    url: str
    sha256: str


# torchvision's IMAGENET1K_V1; the file names carry the first eight digits of these.
PUBLISHED: dict[Family, Download] = {
    "vgg16": Download(
        "https://download.pytorch.org/models/vgg16-397923af.pth",
        "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
    ),
    "googlenet": Download(
        "https://download.pytorch.org/models/googlenet-1378be20.pth",
        "1378be20a8e875cf1568b8a71654e704449655e34711a959a38b04fb34905cef",
    ),
}


def fetch(spec: ModelSpec) -> Path:
    """torchvision's checkpoint of VGG16 or GoogLeNet, from the cache or the network.

    Raises `UsageError` that says what to fetch by hand: offline, where the bytes are not those published, and for
    MobileNetV1, whose checkpoints Keras publishes without a checksum to hold a download against.
    """
    if spec.family not in PUBLISHED:
        raise UsageError("Keras publishes its MobileNetV1 checkpoints without checksums", _keras_by_hand(spec))
    published = PUBLISHED[spec.family]
    path = cache.root() / "downloads" / published.url.rpartition("/")[2]
    if path.is_file() and cache.sha256_of(path) == published.sha256:
        return path
    by_hand = f"fetch it by hand and give --weights torchvision:FILE ({published.url})"
    with cache.atomic(path) as temporary:
        try:
            _download(published.url, temporary)
        except (OSError, http.client.HTTPException) as error:
            raise UsageError(f"cannot download {path.name} ({getattr(error, 'reason', error)})", by_hand) from error
        if (found := cache.sha256_of(temporary)) != published.sha256:
            raise UsageError(f"{published.url} has the SHA-256 {found}, not {published.sha256}", by_hand)
    return path


def _download(url: str, to: Path) -> None:
    with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as response, to.open("wb") as file:
        while chunk := response.read(_CHUNK):
            file.write(chunk)


def _keras_by_hand(spec: ModelSpec) -> str:
    """The address of the one that fits, of the sixteen."""
    alpha = _KERAS_ALPHAS.get(spec.alpha)
    if alpha is None or spec.resolution not in _KERAS_RESOLUTIONS or spec.variant != "standard":
        return "there is one for each alpha of 0.25, 0.5, 0.75 and 1.0 at 128, 160, 192 and 224: fetch it by hand"
    return f"fetch it by hand and give --weights keras:FILE ({_KERAS}/mobilenet_{alpha}_{spec.resolution}_tf.h5)"
