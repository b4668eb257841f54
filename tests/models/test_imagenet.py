from importlib import metadata

import pytest

from mbbench.models import imagenet


def test_classes_and_names_are_those_of_timm() -> None:
    files = {path.name: path for path in metadata.files("timm") or () if path.parent.name == "_info"}
    synsets = files["imagenet_synsets.txt"].read_text().split()
    lemmas = dict(line.split("\t") for line in files["imagenet_synset_to_lemma.txt"].read_text().splitlines())
    assert imagenet.synsets() == tuple(synsets) and len(synsets) == imagenet.CLASSES
    assert [imagenet.name_of(i) for i in range(1000)] == [lemmas[synset].split(",")[0] for synset in synsets]


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("n01440764", 0),
        ("tench", 0),
        ("Tinca tinca", 0),
        ("tench, Tinca tinca", 0),
        ("Great_white-shark", 2),
        ("n15075141", 999),
        ("crane", None),  # the bird and the machine
        ("n02012849", 134),
        ("cat", None),
        ("", None),
        ("n00000000", None),
    ],
)
def test_a_class_is_named_by_its_synset_or_one_of_its_names(name: str, index: int | None) -> None:
    assert imagenet.index_of(name) == index
