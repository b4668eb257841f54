"""Results on disk: one JSON line per cell, appended atomically."""

from __future__ import annotations

import errno
import gc
import gzip
import os
import re
import tempfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from mbbench.errors import UsageError
from mbbench.result import SAMPLES_JSON, SCHEMA, Result

_ID = re.compile(rb'"id":"([^"]*)"')
_GZIP = b"\x1f\x8b"  # the first bytes of a gzip file


def require_writable(path: Path) -> None:
    """Raise `UsageError` if results cannot be appended to `path`: better before measuring than after."""
    _refuse_gzip(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab"):
            pass
    except OSError as error:
        raise _cannot_write(path, error, "choose another file with --results") from error


def require_appendable(path: Path) -> None:
    """Raise `UsageError` like `require_writable`, as far as can be known without making folders or files."""
    _refuse_gzip(path)
    try:
        existing = path if path.exists() else next(parent for parent in path.parents if parent.exists())
        if existing == path and path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if existing != path and not existing.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not os.access(existing, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise _cannot_write(path, error, "choose another file with --results") from error


def append(path: Path, result: Result) -> None:
    """Append one line and wait until it is on disk.

    If that fails, write the line to mbbench-rescued.jsonl in the temporary folder and raise `UsageError`.
    """
    line = msgspec.json.encode(result) + b"\n"
    try:
        _append(path, line)
    except OSError as error:
        rescue = Path(tempfile.gettempdir(), "mbbench-rescued.jsonl")
        try:
            _append(rescue, line)
        except OSError:
            raise _cannot_write(path, error, "free space, and keep the report: only it has this result") from error
        raise _cannot_write(path, error, f"free space or fix the file, then append {rescue} to it") from error


def read(path: Path, *, samples: bool = True, ids: Collection[str] | None = None) -> list[Result]:
    """Return the results in `path`, oldest first; skip a line that a crash cut short. Raises `UsageError`.

    With `samples=False` the lists of raw latencies, most of a record, are returned empty; that is faster. `ids`: the
    results to return, instead of all; other lines are not checked.
    """
    content = _content(path)
    if not samples:
        content = SAMPLES_JSON.sub(b'"samples_ms":[]', content)
    decoder = msgspec.json.Decoder(Result)
    results = []
    with _garbage_collection_disabled():
        for number, line in enumerate(content.split(b"\n"), 1):
            if ids is not None and not ((id := _ID.search(line)) and id[1].decode() in ids):
                continue
            try:
                result = decoder.decode(line)
            except msgspec.MsgspecError as error:
                _refuse_json(line, f"{path} line {number}", error)
                continue  # empty or cut short
            if result.schema != SCHEMA:
                _refuse_json(line, f"{path} line {number}", None)
            results.append(result)
    return results


def _content(path: Path) -> bytes:
    """Return the file's lines, unpacked if it is gzip. Raises `UsageError`."""
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content.startswith(_GZIP) else content
    except OSError as error:  # BadGzipFile too
        cause = f"cannot read {path} ({error.strerror or error})"
        raise UsageError(cause, "name a file that `mbbench run` wrote") from error
    except (EOFError, zlib.error) as error:
        raise UsageError(f"cannot unpack {path} ({error})", "copy it again, or name another file") from error


@contextmanager
def _garbage_collection_disabled() -> Iterator[None]:
    """Disable garbage collection, and exclude the objects made so far from it afterward.

    Millions of new objects, none of them garbage, otherwise trigger collections that take six times as long as
    decoding. A command keeps its records until it ends.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


def _refuse_json(line: bytes, source: str, error: Exception | None) -> None:
    """Raise `UsageError` for a line of JSON that is not a result of this schema; return if it is not JSON."""
    try:
        version = msgspec.json.decode(line, type=dict[str, object]).get("schema")
    except msgspec.MsgspecError:
        return
    if version != SCHEMA:
        raise UsageError(
            f"{source} has schema {version}, but this version of mbbench reads {SCHEMA}",
            "use the version that wrote it",
        ) from error
    raise UsageError(f"{source} is not a result: {error}", "remove the line") from error


def _append(path: Path, line: bytes) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            line = b"\n" + line  # a crash left half a line: end it first
        written = os.write(descriptor, line)
        if written < len(line):  # on a full disk, the part that fits is written
            os.ftruncate(descriptor, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refuse_gzip(path: Path) -> None:
    if path.suffix == ".gz":
        raise UsageError(f"cannot append to a gzip file: {path}", "choose another file with --results")


def _cannot_write(path: Path, error: OSError, remedy: str) -> UsageError:
    return UsageError(f"cannot write {path} ({error.strerror})", remedy)
