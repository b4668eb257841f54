"""What a result records of its test images and their labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec

from mbbench.spec import Count, Name, Text, Total

LabelSource = Literal["order", "imagenet", "file"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitSizes:
    """The number of images in the splits of a folder, broken ones included."""

    train: Count
    test: Count

    @property
    def text(self) -> str:
        return f"{self.train or 'no'} training and {self.test} test images"


@dataclass(frozen=True, slots=True, kw_only=True)
class DataInfo:
    """The test images.

    `skipped`: the number of broken images that --skip-broken left out. `splits`: of a folder; None: of other data, and
    in older records. The fingerprint depends on both.
    """

    name: Text
    images: Total
    classes: Total
    fingerprint: Name
    preprocess: Name  # fingerprint of the decoding and resizing code
    skipped: Count = 0
    splits: SplitSizes | None = None

    @property
    def key(self) -> msgspec.Raw:
        """The data as JSON for the ids of results: without the fields that older records lack."""
        names = ("name", "images", "classes", "fingerprint", "preprocess")
        return msgspec.Raw(msgspec.json.encode({name: getattr(self, name) for name in names}))


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelsInfo:
    """Which of the network's outputs stands for each class of the data.

    `source`: `order` (the classes in the order of their names), `imagenet` (ImageNet's classes, by synset or name) or
    `file` (--labels). `names`: output -> class; empty for ImageNet's, whose order is known. `background`: output 0 is
    none of ImageNet's 1000 classes, the others follow it. `key`: of the mapping; empty if class i is output i.
    """

    source: LabelSource
    names: dict[Count, Text]
    background: bool = False
    key: Name = ""
