from __future__ import annotations

import io
import os
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mbbench.data.broken import Broken
from mbbench.data.files import images_below
from mbbench.data.folders import ImageFolder, folder_source
from mbbench.data.preprocess import Preprocess

PREPROCESS = Preprocess((32, 32), 0.875)


def write_image(path: Path, shade: int = 0, format: str = "PNG") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 40), (shade, shade, shade)).save(path, format)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one image of each class a and b."""
    for kind in ("a", "b"):
        write_image(tmp_path / kind / "0.png")
    return tmp_path


def decode(folder: Path, *paths: Path) -> list[str]:
    """Return the cause for each file, or `pixels`."""
    results = ImageFolder(folder).decode(paths, PREPROCESS)
    return [result.cause if isinstance(result, Broken) else "pixels" for result in results]


def test_several_processes_decode_in_order(folder: Path) -> None:
    paths = [folder / "a" / f"{i:03}.png" for i in range(150)]
    for i, path in enumerate(paths):
        write_image(path, shade=i)
    paths[100].write_bytes(b"no image")
    decoded = list(ImageFolder(folder).decode(paths, PREPROCESS))
    shades = [None if isinstance(result, Broken) else int(result[0, 0, 0]) for result in decoded]
    assert shades == [*range(100), None, *range(101, 150)]
    in_this_process = ImageFolder(folder).decode(paths[:10], PREPROCESS)
    assert all(np.array_equal(a, b) for a, b in zip(in_this_process, decoded, strict=False))  # type: ignore[arg-type]


def bomb() -> bytes:
    """Return a small BMP file whose header claims 30,000 x 30,000 pixels."""
    buffer = io.BytesIO()
    Image.new("L", (2, 2)).save(buffer, "BMP")
    content = bytearray(buffer.getvalue())
    content[18:26] = (30_000).to_bytes(4, "little") * 2
    return bytes(content)


def png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "empty: 0 bytes"),
        (b"hello world", "not an image"),
        (bomb(), "Image size (900000000 pixels) exceeds limit of 178956970 pixels"),
        (png()[:-100], "image file is truncated"),
        (png()[:20], "Truncated File Read"),
    ],
    ids=["empty", "text", "bomb", "truncated", "header"],
)
def test_a_damaged_image_has_its_cause(folder: Path, content: bytes, cause: str) -> None:
    (folder / "a" / "x.png").write_bytes(content)
    (result,) = decode(folder, folder / "a" / "x.png")
    assert result.startswith(cause)


def test_a_mislabelled_image_is_decoded_by_its_content(folder: Path) -> None:
    write_image(folder / "a" / "x.png", format="JPEG")
    write_image(folder / "a" / "y.jpg", format="WEBP")
    assert decode(folder, folder / "a" / "x.png", folder / "a" / "y.jpg") == ["pixels", "pixels"]


def bind_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the path of a socket is at most 107 characters long
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(here)


@pytest.mark.parametrize(
    ("make", "cause"),
    [
        (os.mkfifo, "a FIFO, not a file"),
        (bind_socket, "a socket, not a file"),
        (lambda path: path.symlink_to("/dev/zero"), "a device, not a file"),
        (lambda path: path.symlink_to("gone.png"), "No such file or directory"),
        (lambda path: path.symlink_to("x.png"), "Too many levels of symbolic links"),
        (lambda path: path.symlink_to("0.png"), "pixels"),
    ],
    ids=["fifo", "socket", "device", "gone", "loop", "image"],
)
@pytest.mark.parametrize("layout", ["classes", "photos"])
def test_nothing_but_a_regular_file_is_opened(
    folder: Path, make: Callable[[Path], None], cause: str, layout: str
) -> None:
    path = folder / "a" / "x.png"
    make(path)
    source = folder_source(folder if layout == "classes" else folder / "a")
    assert path in [*source.items("train", 0)[0], *source.items("test", 0)[0]]
    source.identity()  # which must not wait for it, nor follow it in vain
    assert decode(folder, path) == [cause]


def test_folders_are_searched_whatever_their_names(folder: Path) -> None:
    write_image(folder / "a" / "deep.png" / "1.png")
    (folder / "a" / "empty.png").mkdir()
    (folder / "a" / "link.png").symlink_to(folder / "b")
    found = sorted(images_below(folder / "a"))
    assert found == [folder / "a" / "0.png", folder / "a" / "deep.png" / "1.png"]


def test_a_folder_that_cannot_be_listed_is_not_left_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "a" / "secret").mkdir()
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name == "secret":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError):
        ImageFolder(folder)
