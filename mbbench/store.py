"""Results on disk: one JSON line a cell, only ever appended, each line whole or absent whatever happens."""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from mbbench.errors import UsageError
from mbbench.result import SAMPLES_JSON, SCHEMA, Result


def require_writable(path: Path) -> None:
    """Fail before anything is measured rather than after. Raises `UsageError`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab"):
            pass
    except OSError as error:
        raise _cannot_write(path, error, "choose another file with --results") from error


def append(path: Path, result: Result) -> None:
    """Add one line and wait until it is on the disk; raises `UsageError`, having saved the line elsewhere."""
    line = msgspec.json.encode(result) + b"\n"
    try:
        _append(path, line)
    except OSError as error:
        rescue = Path(tempfile.gettempdir(), "mbbench-rescued.jsonl")
        try:
            _append(rescue, line)
        except OSError:
            raise _cannot_write(path, error, "free space; this result is only in the report") from error
        raise _cannot_write(path, error, f"free space or fix it, then append {rescue} to it") from error


def read(path: Path, *, samples: bool = True) -> list[Result]:
    """The results in `path`, oldest first. A line cut short by a crash is passed over; raises `UsageError`.

    Without `samples` the lists of raw latencies, which are most of a record, come back empty, and soon.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path} ({error.strerror})", "name a file that `mbbench run` wrote") from error
    if not samples:
        content = SAMPLES_JSON.sub(b'"samples_ms":[]', content)
    decoder = msgspec.json.Decoder(Result)
    results = []
    with _without_collection():
        for number, line in enumerate(content.split(b"\n"), 1):
            try:
                result = decoder.decode(line)
            except msgspec.MsgspecError as error:
                _refuse(line, f"{path} line {number}", error)
                continue  # empty, or torn
            if result.schema != SCHEMA:
                _refuse(line, f"{path} line {number}", None)
            results.append(result)
    return results


@contextmanager
def _without_collection() -> Iterator[None]:
    """Looking for garbage among millions of new objects, none of which is any, takes six times as long as the rest.

    They are not looked at later either: a command's records stay to its end.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


def _refuse(line: bytes, source: str, error: Exception | None) -> None:
    """Raise what a line that does not decode, or has another schema, deserves; return if it is no JSON at all."""
    try:
        version = msgspec.json.decode(line, type=dict[str, object]).get("schema")
    except msgspec.MsgspecError:
        return
    if version != SCHEMA:
        raise UsageError(
            f"{source} has schema {version}, this mbbench reads {SCHEMA}", "use the mbbench that wrote it"
        ) from error
    raise UsageError(f"{source} is no result: {error}", "remove the line") from error


def _append(path: Path, line: bytes) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            line = b"\n" + line  # a crash left half a line: close it, so that it takes nothing with it
        written = os.write(descriptor, line)
        if written < len(line):  # a full disk takes what fits
            os.ftruncate(descriptor, size)
            raise OSError(28, os.strerror(28))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cannot_write(path: Path, error: OSError, remedy: str) -> UsageError:
    return UsageError(f"cannot write {path} ({error.strerror})", remedy)
