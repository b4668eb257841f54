"""The parts in which files travel to a machine without a network: pieces of a limited size, large files compressed.

Only the standard library is used: the machine has nothing else yet.
"""

from __future__ import annotations

import lzma
import re
import shutil
import zipfile
from collections.abc import Iterable
from pathlib import Path

_PIECE = re.compile(r"(?P<name>.+)\.piece(?P<index>\d+)of(?P<count>\d+)")
_COMPRESSED = ".xz"


def compress(source: Path, folder: Path) -> Path:
    """Write `source` to `folder` as NAME.xz, and return it. A wheel is stored first, since that compresses better."""
    target = folder / f"{source.name}{_COMPRESSED}"
    stored = folder / f"{source.name}.stored"
    if zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as packed, zipfile.ZipFile(stored, "w", zipfile.ZIP_STORED) as plain:
            for member in packed.infolist():
                plain.writestr(zipfile.ZipInfo(member.filename, member.date_time), packed.read(member))
    else:
        shutil.copyfile(source, stored)
    with stored.open("rb") as plain_file, lzma.open(target, "wb") as compressed:
        shutil.copyfileobj(plain_file, compressed, 1 << 20)
    stored.unlink()
    return target


def distribute(files: Iterable[Path], target: Path, limit: int) -> list[Path]:
    """Write `files` to the folders `target`/part-1, part-2, ... of at most `limit` bytes each; return the folders.

    They are filled in the order given. A file that does not fit into the rest of a part is split.
    """
    parts: list[Path] = []
    room = 0
    for path in files:
        content = path.read_bytes()
        pieces: list[tuple[Path, bytes]] = []
        while content or not pieces:
            if room == 0:
                parts.append(target / f"part-{len(parts) + 1}")
                parts[-1].mkdir(parents=True)
                room = limit
            pieces.append((parts[-1], content[:room]))
            content = content[room:]
            room -= len(pieces[-1][1])
        for index, (folder, piece) in enumerate(pieces, 1):
            name = path.name if len(pieces) == 1 else f"{path.name}.piece{index}of{len(pieces)}"
            (folder / name).write_bytes(piece)
    return parts


def collect(parts: Path, store: Path) -> None:
    """Move all files in the folders of `parts` to `store`, join what is complete, and decompress it."""
    store.mkdir(parents=True, exist_ok=True)
    for path in sorted(parts.glob("part-*/*")):
        shutil.copyfile(path, store / path.name)
    pieces: dict[str, dict[int, Path]] = {}
    counts: dict[str, int] = {}
    for path in store.iterdir():
        if (match := _PIECE.fullmatch(path.name)) is not None:
            pieces.setdefault(match["name"], {})[int(match["index"])] = path
            counts[match["name"]] = int(match["count"])
    for name, by_index in pieces.items():
        if len(by_index) == counts[name]:
            with (store / name).open("wb") as joined:
                for _, path in sorted(by_index.items()):
                    joined.write(path.read_bytes())
                    path.unlink()
    for path in store.glob(f"*{_COMPRESSED}"):
        with lzma.open(path) as compressed, path.with_suffix("").open("wb") as plain:
            shutil.copyfileobj(compressed, plain, 1 << 20)
        path.unlink()
