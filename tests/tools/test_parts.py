"""Files survive being compressed, split, carried one part at a time, and joined."""

import random
import zipfile
from pathlib import Path

import pytest
from parts import collect, compress, distribute


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def test_files_arrive_whole_whatever_the_size_of_a_part(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    files = []
    for name, size in (("a.whl", 700), ("b.bin", 2600), ("empty", 0), ("c.txt", 1)):
        (source / name).write_bytes(noise(size))
        files.append(source / name)
    parts = distribute(files, tmp_path / "parts", 1000)
    assert [part.name for part in parts] == ["part-1", "part-2", "part-3", "part-4"]
    assert [sum(path.stat().st_size for path in part.iterdir()) for part in parts] == [1000, 1000, 1000, 301]
    assert sorted(path.name for path in parts[0].iterdir()) == ["a.whl", "b.bin.piece1of4"]
    collect(tmp_path / "parts", tmp_path / "store")
    assert {path.name: path.read_bytes() for path in (tmp_path / "store").iterdir()} == {
        path.name: path.read_bytes() for path in files
    }


def test_a_file_is_joined_once_its_last_piece_has_arrived(tmp_path: Path) -> None:
    file = tmp_path / "wheel"
    file.write_bytes(noise(2500))
    parts = distribute([file], tmp_path / "all", 1000)
    for part, names in zip(
        reversed(parts),
        (["wheel.piece3of3"], ["wheel.piece2of3", "wheel.piece3of3"], ["wheel"]),
        strict=True,
    ):
        arrived = tmp_path / f"arrived-{part.name}"
        arrived.mkdir()
        part.rename(arrived / part.name)
        collect(arrived, tmp_path / "store")
        assert sorted(path.name for path in (tmp_path / "store").iterdir()) == names
    assert (tmp_path / "store/wheel").read_bytes() == file.read_bytes()


@pytest.mark.parametrize("is_wheel", [True, False])
def test_a_compressed_file_has_the_same_content(tmp_path: Path, is_wheel: bool) -> None:
    file = tmp_path / "file.whl"
    if is_wheel:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("module.py", b"x = 1\n" * 5000)
    else:
        file.write_bytes(b"x = 1\n" * 5000)
    compressed = compress(file, tmp_path)
    assert compressed == tmp_path / "file.whl.xz"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.whl", "file.whl.xz"]
    distribute([compressed], tmp_path / "parts", 10**6)
    collect(tmp_path / "parts", tmp_path / "store")
    (copy,) = (tmp_path / "store").iterdir()
    assert copy.name == "file.whl"
    if is_wheel:
        with zipfile.ZipFile(copy) as archive:
            assert archive.read("module.py") == b"x = 1\n" * 5000
    else:
        assert copy.read_bytes() == file.read_bytes()
