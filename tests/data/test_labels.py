from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mbbench import data
from mbbench.data import Dataset
from mbbench.data.labels import map_labels, statement
from mbbench.errors import UsageError
from mbbench.result import LabelsInfo

IMAGENETTE = ("n01440764", "n02102040", "n03888257")  # outputs 0, 217 and 701


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MBBENCH_CACHE", str(tmp_path / "cache"))


def split_of(folder: Path, *names: str) -> Dataset:
    """Return the test images of a data set with one image of each class."""
    for shade, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        Image.new("RGB", (40, 40), (shade, shade, shade)).save(folder / name / "0.png")
    return data.load_split(str(folder), (32, 32), "test")


def labels_of(mapped: Dataset) -> list[int]:
    return [int(label) for label in mapped.arrays()[1]]


def test_folders_named_by_synsets_are_classes_of_a_network_of_1000(tmp_path: Path) -> None:
    split = split_of(tmp_path / "nette", *IMAGENETTE)
    mapped = map_labels(split, 1000)
    assert labels_of(mapped) == [0, 217, 701]
    assert labels_of(split) == [0, 1, 2]
    assert mapped.labeling is not None and (mapped.labeling.source, mapped.labeling.names) == ("imagenet", {})
    assert statement(mapped) == "nette: 3 of 3 folders are ImageNet classes"
    assert (mapped.classes, mapped.fingerprint, mapped.images) == (3, split.fingerprint, split.images)
    assert mapped.key("mobilenet_v1") != split.fingerprint
    assert map_labels(split, 1000) == mapped


def test_folders_named_by_names_are_classes_too_in_the_order_of_the_network(tmp_path: Path) -> None:
    split = split_of(tmp_path / "photos", "tench", "English_springer", "Parachute")
    assert split.class_names == ("English_springer", "Parachute", "tench")
    assert labels_of(map_labels(split, 1000)) == [217, 701, 0]


def test_a_network_of_1001_has_the_background_first(tmp_path: Path) -> None:
    mapped = map_labels(split_of(tmp_path / "nette", *IMAGENETTE), 1001)
    assert labels_of(mapped) == [1, 218, 702]
    assert mapped.labeling is not None and mapped.labeling.background
    assert statement(mapped) == (
        "nette: 3 of 3 folders are ImageNet classes; output 0 of the network's 1001 is the background, so class i is"
        " output i + 1"
    )


def test_1000_classes_of_any_name_follow_the_background(tmp_path: Path) -> None:
    mapped = map_labels(split_of(tmp_path / "many", *(f"c{i:03}" for i in range(1000))), 1001)
    assert labels_of(mapped) == list(range(1, 1001))
    assert mapped.labeling is not None and mapped.labeling.names[1] == "c000"
    assert statement(mapped) == (
        "many: 1000 classes; output 0 of the network's 1001 is the background, so class i is output i + 1"
    )


def test_as_many_outputs_as_classes_are_in_the_order_of_names(tmp_path: Path) -> None:
    split = split_of(tmp_path / "pets", "cat", "dog")
    mapped = map_labels(split, 2)
    assert mapped.labeling == LabelsInfo(source="order", names={0: "cat", 1: "dog"})
    assert (mapped.labels, mapped.key("mobilenet_v1"), statement(mapped)) == (split.labels, split.fingerprint, None)


def test_classes_that_are_not_the_networks_are_not_mapped(tmp_path: Path) -> None:
    split = split_of(tmp_path / "pets", "cat", "dog")
    for outputs in (3, 1000, 1001):
        assert map_labels(split, outputs) == split
    assert map_labels(split_of(tmp_path / "nette", *IMAGENETTE), 10).labeling is None
    digits = data.load_split("digits", (32, 32), "test", limit=10)
    assert map_labels(digits, 10).labeling == LabelsInfo(source="order", names={})
    assert map_labels(digits, 1000) == digits


def test_a_part_of_imagenets_classes_is_refused_with_the_other_folders(tmp_path: Path) -> None:
    split = split_of(tmp_path / "mix", "n01440764", "tench", "crane", *(f"thing {i}" for i in range(8)))
    with pytest.raises(UsageError) as caught:
        map_labels(split, 1000)
    assert str(caught.value) == (
        "2 of the 11 folders of mix are ImageNet classes, but not crane, thing 0, thing 1, thing 2, thing 3, thing 4"
        " and 3 more; name these by their synsets (n01440764), remove them, or give --labels FILE"
    )
    assert map_labels(split, 11).labeling is not None


CSV = "folder,index\ncat,2\n dog , 0\nbird,1\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [("l.csv", CSV), ("l.csv", "cat,2\ndog,0\n\n"), ("l.txt", "\ufeff" + CSV), ("l.json", '{"dog": 0, "cat": 2}')],
)
def test_a_file_maps_folders_to_outputs(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    mapped = map_labels(split_of(tmp_path / "pets", "cat", "dog"), 3, str(tmp_path / name))
    assert labels_of(mapped) == [2, 0]
    assert mapped.labeling is not None and (mapped.labeling.source, mapped.labeling.names) == (
        "file", {2: "cat", 0: "dog"},
    )  # fmt: skip
    assert statement(mapped) == "pets: the file of --labels has an output for 2 of 2 classes"


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("l.csv", "cat,2\n", "l.csv has no output for dog of pets; add a line for each folder"),
        (
            "l.csv",
            "cat,2\ndog,3\n",
            r"an output in .*l.csv is not 0 to 2: 3 \(dog\); number the network's outputs from",
        ),
        ("l.csv", "cat,2\ndog,-1\n", "is not 0 to 2: -1 "),
        ("l.csv", "cat,2\ndog,0\ncat,1\n", "has two outputs for cat: 2 and 1; remove one"),
        ("l.csv", "cat,2\ndog,x\n", "l.csv does not map folders to outputs .*; write a CSV file with lines like"),
        ("l.csv", "cat;2\ndog;1\n", "row 1 has 1 fields instead of 2"),
        ("l.json", '{"cat": 2.5}', "l.json does not map folders to outputs"),
        ("l.json", "[", "l.json does not map folders to outputs"),
        ("gone.csv", None, r"cannot read .*gone.csv \(No such file or directory\)"),
    ],
)
def test_a_file_that_does_not_map_every_folder_is_refused(
    tmp_path: Path, name: str, text: str | None, error: str
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=error):
        map_labels(split_of(tmp_path / "pets", "cat", "dog"), 3, str(tmp_path / name))


def test_a_file_needs_folders(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("0,1\n")
    with pytest.raises(UsageError, match="digits has no folders to map with --labels; leave out --labels"):
        map_labels(data.load_split("digits", (32, 32), "test", limit=10), 10, str(tmp_path / "l.csv"))


def test_images_without_labels_stay_so(tmp_path: Path) -> None:
    for i in range(4):
        Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / f"{i}.png")
    photos = data.load_split(str(tmp_path), (32, 32), "test")
    assert map_labels(photos, 1000, "l.csv") == photos


@pytest.mark.parametrize("name", ["labels.csv", "labels.json"])
def test_a_pipe_of_labels_is_refused_instead_of_waited_for(tmp_path: Path, name: str) -> None:
    split = split_of(tmp_path / "nette", *IMAGENETTE)
    os.mkfifo(tmp_path / name)
    with pytest.raises(UsageError, match=rf"cannot read .*{name} \(it is a FIFO, not a file\); give a readable file"):
        map_labels(split, 1000, str(tmp_path / name))
