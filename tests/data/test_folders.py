from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mbbench.data.folders import ImageFolder, folder_source
from mbbench.errors import UsageError


def write_image(path: Path, shade: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 40), (shade, shade, shade)).save(path, "PNG")


def write_devkit(folder: Path, identifiers: dict[int, str]) -> None:
    """Write a meta.mat like that of the ILSVRC2012 development kit: the classes, then inner nodes of the hierarchy."""
    from scipy.io import savemat

    rows: NDArray[np.void] = np.zeros(
        (len(identifiers) + 1, 1), [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("num_children", "O")]
    )
    for row, (number, synset) in zip(rows[:, 0], [*identifiers.items(), (1001, "n00000001")], strict=True):
        row["ILSVRC2012_ID"], row["WNID"], row["num_children"] = number, synset, 2 if number == 1001 else 0
    savemat(folder / "meta.mat", {"synsets": rows})


def test_class_folders_without_splits_are_divided(tmp_path: Path) -> None:
    for kind in ("cat", "ant", "bee"):
        for i in range(10):
            write_image(tmp_path / kind / "deep" / f"{i}.png")
    source = folder_source(tmp_path)
    train, labels = source.items("train", 3)
    test, test_labels = source.items("test", 3)
    assert source.classes() == 3
    assert (labels.tolist(), test_labels.tolist()) == ([0] * 8 + [1] * 8 + [2] * 8, [0, 0, 1, 1, 2, 2])
    assert sorted([*train, *test]) == sorted(tmp_path.rglob("*.png"))
    assert [("ant", "bee", "cat").index(path.parts[-3]) for path in test] == test_labels.tolist()


@pytest.mark.parametrize("name", ["val", "test"])
def test_train_and_val_folders_are_the_splits(tmp_path: Path, name: str) -> None:
    for part, count in (("train", 3), (name, 2)):
        for kind in ("a", "b"):
            for i in range(count):
                write_image(tmp_path / part / kind / f"{i}.JPG")
    source = folder_source(tmp_path)
    train, labels = source.items("train", 0)
    test, test_labels = source.items("test", 0)
    assert (labels.tolist(), test_labels.tolist()) == ([0, 0, 0, 1, 1, 1], [0, 0, 1, 1])
    assert {path.relative_to(tmp_path).parts[0] for path in train} == {"train"}
    assert {path.relative_to(tmp_path).parts[0] for path in test} == {name}


def test_val_has_the_labels_of_train(tmp_path: Path) -> None:
    for kind in ("a", "b", "c"):
        write_image(tmp_path / "train" / kind / "0.png")
    write_image(tmp_path / "val" / "c" / "0.png")
    assert folder_source(tmp_path).items("test", 0)[1].tolist() == [2]
    write_image(tmp_path / "val" / "d" / "0.png")
    with pytest.raises(UsageError, match="class d is in the test folder but not in "):
        folder_source(tmp_path).items("test", 0)


def test_val_without_train_is_only_a_test_set(tmp_path: Path) -> None:
    for kind in ("a", "b"):
        write_image(tmp_path / "val" / kind / "0.png")
    source = folder_source(tmp_path)
    assert source.items("test", 0)[1].tolist() == [0, 1]
    with pytest.raises(UsageError, match="has no training images; add train/ next to val/, or give --weights FILE"):
        source.items("train", 0)


def test_a_thousand_synset_folders_are_only_a_test_set(tmp_path: Path) -> None:
    for i in range(1000):
        (tmp_path / f"n{i:08}").mkdir()
        (tmp_path / f"n{i:08}" / "x.JPEG").touch()
    source = folder_source(tmp_path)
    assert source.items("test", 0)[1].tolist() == list(range(1000))
    with pytest.raises(UsageError, match="has no training images"):
        source.items("train", 0)
    (tmp_path / "n00000000").rename(tmp_path / "cat")  # no longer ImageNet, but any data set of a thousand classes
    assert len(folder_source(tmp_path).items("test", 0)[0]) == 1000  # one image per class goes to the test split
    assert len(folder_source(tmp_path).items("train", 0)[0]) == 0


def test_hidden_files_and_other_files_are_ignored(tmp_path: Path) -> None:
    for name in ("a/0.png", "b/0.png", "a/._0.png", ".trash/0.png"):
        write_image(tmp_path / name)
    (tmp_path / "a" / "notes.txt").write_text("")
    source = ImageFolder(tmp_path)
    files, _ = source.items("test", 0)
    assert (source.classes(), [path.name for path in files]) == (2, ["0.png", "0.png"])


def test_the_identity_depends_on_names_and_content(tmp_path: Path) -> None:
    for kind in ("a", "b"):
        write_image(tmp_path / kind / "0.png")
    identities = [folder_source(tmp_path).identity()]
    assert folder_source(tmp_path).identity() == identities[0]
    Image.new("RGB", (50, 50)).save(tmp_path / "a" / "0.png")
    identities.append(folder_source(tmp_path).identity())
    (tmp_path / "a" / "0.png").rename(tmp_path / "a" / "1.png")
    identities.append(folder_source(tmp_path).identity())
    (tmp_path / "b").rename(tmp_path / "c")
    identities.append(folder_source(tmp_path).identity())
    assert all(a != b for i, a in enumerate(identities) for b in identities[:i])


def test_fewer_than_two_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        folder_source(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} has no folders of images; put the images of each class into a separate folder"
    )
    write_image(tmp_path / "only" / "0.png")
    with pytest.raises(UsageError, match="has only one folder of images;"):
        folder_source(tmp_path)


def test_photos_without_labels_are_divided(tmp_path: Path) -> None:
    for number in range(10):
        write_image(tmp_path / f"{number}.png")
    (tmp_path / "notes.txt").write_text("")
    source = folder_source(tmp_path)
    assert (source.name, source.classes()) == (tmp_path.name, 1)
    files = {split: [path.name for path in source.items(split, 0)[0]] for split in ("train", "test")}
    assert (len(files["train"]), len(files["test"])) == (8, 2)
    assert sorted(files["train"] + files["test"]) == [f"{number}.png" for number in range(10)]
    before = source.identity()
    (tmp_path / "9.png").unlink()
    assert folder_source(tmp_path).identity() != before


def write_imagenet(folder: Path, numbers: tuple[int, ...] = (1, 2, 3)) -> list[Path]:
    paths = [folder / f"ILSVRC2012_val_{number:08}.JPEG" for number in numbers]
    for path in paths:
        write_image(path)
    return paths


def test_imagenet_labels_are_read_from_val_txt(tmp_path: Path) -> None:
    paths = write_imagenet(tmp_path)
    name = "ILSVRC2012_val_0000000"
    (tmp_path / "val.txt").write_text(f"{name}3.JPEG 230\nval/{name}1.JPEG 65\n\n{name}2.JPEG 970")
    source = folder_source(tmp_path)
    files, labels = source.items("test", 0)
    assert (source.name, source.classes(), files, labels.tolist()) == ("imagenet-val", 1000, paths, [65, 970, 230])
    with pytest.raises(UsageError, match="has no training images; give --weights FILE"):
        source.items("train", 0)


def test_labels_of_the_development_kit_become_positions_of_sorted_synsets(tmp_path: Path) -> None:
    write_devkit(tmp_path, {1: "n02119789", 2: "n02100735", 3: "n01440764"})
    (tmp_path / "ILSVRC2012_validation_ground_truth.txt").write_text("1\n3\n2\n1\n")
    write_imagenet(tmp_path, (1, 2, 4))  # the third image is missing
    assert folder_source(tmp_path).items("test", 0)[1].tolist() == [2, 0, 2]


def test_labels_of_the_development_kit_need_its_meta_mat(tmp_path: Path) -> None:
    write_imagenet(tmp_path)
    (tmp_path / "ILSVRC2012_validation_ground_truth.txt").write_text("1\n2\n3\n")
    with pytest.raises(UsageError) as caught:
        folder_source(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} has no labels; put val.txt, or ILSVRC2012_validation_ground_truth.txt and meta.mat of the"
        " development kit, next to the images"
    )
    (tmp_path / "meta.mat").write_text("not a MAT file")
    with pytest.raises(UsageError, match=r"meta.mat is not from ImageNet's development kit"):
        folder_source(tmp_path)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("ILSVRC2012_val_00000001.JPEG 65\n", "do not match its images"),
        ("ILSVRC2012_val_00000001.JPEG\n", "do not match its images"),
        ("".join(f"ILSVRC2012_val_0000000{i}.JPEG x\n" for i in (1, 2, 3)), "do not match its images"),
        ("".join(f"ILSVRC2012_val_0000000{i}.JPEG 1000\n" for i in (1, 2, 3)), "is not 0 to 999: 1000"),
    ],
)
def test_labels_that_do_not_match_the_images_are_refused(tmp_path: Path, text: str, cause: str) -> None:
    write_imagenet(tmp_path)
    (tmp_path / "val.txt").write_text(text)
    with pytest.raises(UsageError, match=cause):
        folder_source(tmp_path)


def test_a_short_list_of_labels_is_refused(tmp_path: Path) -> None:
    write_imagenet(tmp_path)
    write_devkit(tmp_path, {1: "n1", 2: "n2"})
    (tmp_path / "ILSVRC2012_validation_ground_truth.txt").write_text("1\n2\n")
    with pytest.raises(UsageError, match="do not match its images"):
        folder_source(tmp_path)
