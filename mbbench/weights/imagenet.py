"""`--weights imagenet`: published checkpoints, downloaded once and verified by their checksums."""

from __future__ import annotations

import http.client
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from mbbench import cache
from mbbench.errors import UsageError
from mbbench.families import Family
from mbbench.spec import ModelSpec

_CHUNK_BYTES = 1 << 20
_TIMEOUT_S = 30.0
_KERAS = "https://storage.googleapis.com/tensorflow/keras-applications/mobilenet"
_KERAS_ALPHAS = {1.0: "1_0", 0.75: "7_5", 0.5: "5_0", 0.25: "2_5"}
_KERAS_RESOLUTIONS = (224, 192, 160, 128)


@dataclass(frozen=True, slots=True)
class Download:
    """A published file and its checksum."""

    url: str
    sha256: str


# torchvision's IMAGENET1K_V1. The file names contain the first eight digits of the checksums.
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
    """Return the path of torchvision's checkpoint of VGG16 or GoogLeNet, downloaded if it is not in the cache.

    Raises `UsageError`, which states what to download by hand, if the download fails or its checksum is wrong, and for
    MobileNetV1, because Keras publishes its checkpoints without checksums.
    """
    require_published(spec)
    published = PUBLISHED[spec.family]
    path = cache.root() / "downloads" / published.url.rpartition("/")[2]
    if path.is_file() and cache.sha256_of(path) == published.sha256:
        return path
    remedy = f"download {published.url} by hand and give --weights torchvision:FILE"
    with cache.atomic(path) as temporary:
        try:
            _download(published.url, temporary)
        except (OSError, http.client.HTTPException) as error:
            raise UsageError(f"cannot download {path.name} ({getattr(error, 'reason', error)})", remedy) from error
        if (digest := cache.sha256_of(temporary)) != published.sha256:
            raise UsageError(f"the SHA-256 of {path.name} is {digest} instead of {published.sha256}", remedy)
    return path


def require_published(spec: ModelSpec) -> None:
    """Raise `UsageError` if no checkpoint of the network can be downloaded."""
    if spec.family == "mobilenet_v1":
        cause = "cannot download MobileNetV1's weights: Keras publishes its checkpoints without checksums"
        raise UsageError(cause, _keras_remedy(spec))
    if spec.family not in PUBLISHED:
        raise UsageError(f"no published weights of {spec.label} are known", "give --weights torchvision:FILE")


def _download(url: str, path: Path) -> None:
    with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as response, path.open("wb") as file:
        while chunk := response.read(_CHUNK_BYTES):
            file.write(chunk)


def _keras_remedy(spec: ModelSpec) -> str:
    """Return how to get the one of Keras's sixteen checkpoints that matches `spec`."""
    alpha = _KERAS_ALPHAS.get(spec.alpha)
    if alpha is None or spec.resolution not in _KERAS_RESOLUTIONS or spec.variant != "standard":
        return "choose alpha 0.25, 0.5, 0.75 or 1.0 and resolution 128, 160, 192 or 224, and download its file by hand"
    url = f"{_KERAS}/mobilenet_{alpha}_{spec.resolution}_tf.h5"
    return f"download {url} by hand and give --weights keras:FILE"
