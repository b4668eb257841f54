"""Files that can be made again: written whole or not at all, under names that say what they hold."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from mbbench.errors import UsageError

_T = TypeVar("_T")


def root() -> Path:
    """$MBBENCH_CACHE, else $XDG_CACHE_HOME/mbbench, else ~/.cache/mbbench."""
    if own := os.environ.get("MBBENCH_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mbbench"


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write; it becomes `path` when the block ends well, and is removed when it does not.

    Raises `UsageError` where the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UsageError(f"the disk is full: cannot write {path}", "free space, or set MBBENCH_CACHE") from error
        raise UsageError(f"cannot write {path} ({error.strerror or error})", "fix it, or set MBBENCH_CACHE") from error
    finally:
        with suppress(OSError):  # where nothing could be written, nothing can be removed
            temporary.unlink()


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of the file in hexadecimal digits. Raises `OSError`."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remember(path: Path, kind: type[_T], make: Callable[[], _T]) -> _T:
    """The plain data stored as JSON at `path`; made and stored if it is missing or unreadable."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.MsgspecError):
        value = make()
        with atomic(path) as temporary:
            temporary.write_bytes(msgspec.json.encode(value))
        return value
