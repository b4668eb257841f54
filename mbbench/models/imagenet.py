"""ImageNet's 1000 classes (ILSVRC 2012), in the order of the outputs of published networks.

Their synsets and names are in imagenet.tsv, which names its sources.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from importlib import resources

CLASSES = 1000


@cache
def _rows() -> tuple[tuple[str, str], ...]:
    """Return the synset and the comma-separated names of each class."""
    text = resources.files("mbbench.models").joinpath("imagenet.tsv").read_text(encoding="utf-8")
    rows = (line.split("\t") for line in text.splitlines() if not line.startswith("#"))
    return tuple((synset, names) for synset, names in rows)


def synsets() -> tuple[str, ...]:
    """Return the synset of each class: `n01440764` is class 0."""
    return tuple(synset for synset, _ in _rows())


def name_of(index: int) -> str:
    """Return the first name of a class: `tench` is class 0. A few classes share theirs."""
    return _rows()[index][1].partition(",")[0]


def index_of(name: str) -> int | None:
    """Return the class of a synset or a name, or None if no class or several classes have it.

    Capitals, and hyphens or underscores for spaces, do not matter: `Great_white-shark` is class 2.
    """
    return _indices().get(_plain(name))


@cache
def _indices() -> dict[str, int]:
    pairs = [
        (name, index)
        for index, (synset, names) in enumerate(_rows())
        for name in {synset, *map(_plain, (names, *names.split(",")))}
    ]
    counts = Counter(name for name, _ in pairs)
    return {name: index for name, index in pairs if counts[name] == 1}


def _plain(name: str) -> str:
    return name.strip().lower().replace("_", " ").replace("-", " ")
