"""Files: reading that cannot hang, atomic writes, and the folder of files that can be made again.

networks      the normal form of networks in files and of libraries, named by its SHA-256, with what is known about it
weights       checkpoints: trained, random, imported, pruned, fine-tuned; `.partial` files hold interrupted training
downloads     published checkpoints (`--weights imagenet`)
data          decoded images and labels
quantized     the fp32 graph of each INT8 search, and the ranges that it chose
artifacts     exported and converted models
references    logits that sessions are compared with
built         an empty file for each engine that this machine built, named by its SHA-256
tensorrt      TensorRT's engines, timings and compiled kernels
ceilings      Mult-Adds and bytes per second of this machine
noise         noise floors that `mbbench calibrate` measured

The cluster worker that measures holds `measuring.lock`. Except in `downloads` and `built`, a file's name is a key of
everything that its content depends on (`spec.content_key`), so files never go out of date. If the code makes another
file from the same input, raise the version in its key.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import TypeVar

import msgspec

from mbbench.errors import UsageError

_T = TypeVar("_T")
_MAX_UNPACKED_BYTES = 2**30
_MAX_TEXT_BYTES = 16 << 20
_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


def root() -> Path:
    """Return the cache folder: $MBBENCH_CACHE, else $XDG_CACHE_HOME/mbbench, else ~/.cache/mbbench."""
    if folder := os.environ.get("MBBENCH_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mbbench"


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; rename it to `path` if the block succeeds, remove it otherwise.

    Raises `UsageError` if the disk is full or the folder cannot be written to.
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
        cause = f"cannot write {path} ({error.strerror or error})"
        raise UsageError(cause, "check its folder, or set MBBENCH_CACHE") from error
    finally:
        with suppress(OSError):  # it may not exist
            temporary.unlink()


def open_file(path: Path) -> BufferedReader:
    """Open a regular file to read. Raises `OSError`, also for a pipe or a device, which may have no end."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe without a writer blocks otherwise
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise _not_regular(_kind(mode), path)


def read_file(path: Path) -> bytes:
    """Return the content of a regular file. Raises `OSError`."""
    with open_file(path) as file:
        return file.read()


def unpack(content: bytes) -> bytes:
    """Return what gzip packed. Raises `OSError`, `EOFError` or `zlib.error`."""
    with gzip.GzipFile(fileobj=BytesIO(content)) as file:
        unpacked = file.read(_MAX_UNPACKED_BYTES + 1)
    if len(unpacked) > _MAX_UNPACKED_BYTES:
        raise OSError(errno.EFBIG, "it unpacks to more than 1 GiB")
    return unpacked


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a regular file in hexadecimal digits. Raises `OSError`."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def special_kind(path: Path) -> str | None:
    """Return what `path` leads to if it is not a regular file, such as `a FIFO`, whose reader would wait; else None.

    Raises `OSError` if it leads nowhere.
    """
    mode = path.stat().st_mode
    return None if stat.S_ISREG(mode) else _kind(mode)


def _kind(mode: int) -> str:
    return _KINDS.get(stat.S_IFMT(mode), "a special file")


def require_regular(path: Path) -> None:
    """Raise `OSError` unless `path` leads to a regular file: for libraries that open it themselves."""
    if (kind := special_kind(path)) is not None:
        raise _not_regular(kind, path)


def _not_regular(kind: str, path: Path) -> OSError:
    number = errno.EISDIR if kind == _KINDS[stat.S_IFDIR] else errno.EINVAL
    return OSError(number, f"it is {kind}, not a file", str(path))  # an `IsADirectoryError` for a folder


def read_small(path: Path) -> bytes:
    """Return the content of a file of text. Raises `OSError`, also if it is not a regular file, or is huge."""
    with open_file(path) as file:
        if (size := os.fstat(file.fileno()).st_size) > _MAX_TEXT_BYTES:
            raise OSError(errno.EFBIG, f"it has {size} bytes, more than {_MAX_TEXT_BYTES}", str(path))
        return file.read()


def load_or_make(path: Path, kind: type[_T], make: Callable[[], _T]) -> _T:
    """Return the plain data stored as JSON at `path`; make and store it if it is missing or unreadable."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.MsgspecError):
        value = make()
        with atomic(path) as temporary:
            temporary.write_bytes(msgspec.json.encode(value))
        return value
