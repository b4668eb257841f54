"""Results on disk: one JSON line per cell, appended atomically."""

from __future__ import annotations

import errno
import gc
import os
import re
import stat
import tempfile
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from mbbench import cache
from mbbench.errors import MbbenchError, UsageError
from mbbench.result import SCHEMA, Result
from mbbench.result.faults import fault

_ID = re.compile(rb'"id":"([^"]*)"')
_GZIP = b"\x1f\x8b"  # the first bytes of a gzip file
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # which editors put before UTF-8
_SAMPLES = re.compile(rb'"samples_ms":\[[^\]]+\]')
_NO_SAMPLES = b'"samples_ms":[],"n":'  # of a latency, which must have some
_CUT_SHORT = "it was cut short"
_PLACE = re.compile(r"\(byte (\d+)\)$")
# Of a line: no JSON or no record, text that is not UTF-8, JSON nested without end, an impossible request.
_UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, MbbenchError)
_MAX_NOTES, _MAX_RANGES = 5, 12


def require_writable(path: Path) -> None:
    """Raise `UsageError` if results cannot be appended to `path`: better before measuring than after.

    Nothing is created: a run that is refused leaves no file and no folder.
    """
    remedy = "choose another file with --results"
    if path.suffix == ".gz":
        raise UsageError(f"cannot append to a gzip file: {path}", remedy)
    try:
        try:
            _require_appendable(path)
        except FileNotFoundError:
            _require_creatable(path.parent)
    except OSError as error:
        raise _cannot_write(path, error, remedy) from error


def _require_appendable(path: Path) -> None:
    """Open `path` to append, without waiting for the reader of a pipe. Raises `OSError`."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a folder, not a file")
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    os.close(descriptor)
    if stat.S_ISFIFO(mode):
        raise OSError(errno.EINVAL, "it is a FIFO, not a file")


def _require_creatable(folder: Path) -> None:
    """Raise `OSError` unless `folder` exists and can be written to, or can be created."""
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


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


@dataclass(frozen=True, slots=True)
class Stored:
    """The content of a results file."""

    path: Path
    content: bytes

    @property
    def count(self) -> int:
        """The number of its lines."""
        return len(self.content.splitlines())

    def results(
        self,
        note: Callable[[str], None] = lambda _: None,
        *,
        samples: bool = True,
        ids: Collection[str] | None = None,
    ) -> list[Result]:
        """Return the results, oldest first, without the lines that hold none; `note` is told which these are, and why.

        With `samples=False` the lists of raw latencies, most of a record, are not read and returned empty; that is
        faster. (They are read if one of them is empty, to leave out its record.) `ids`:
        the results to return, instead of all; other lines are not checked. Raises `UsageError` if the file has lines,
        but no result. A single line that a crash cut short is no result yet, and no error.
        """
        content = self.content if samples else _SAMPLES.sub(b'"samples_ms":[ ]', self.content)
        with_samples = samples or _NO_SAMPLES in content
        content = self.content if with_samples else content
        results, faults = [], {}
        decoder = msgspec.json.Decoder(Result)
        with _garbage_collection_disabled():
            for number, line in enumerate(content.split(b"\n"), 1):
                if ids is not None and not ((id := _ID.search(line)) and id[1].decode(errors="replace") in ids):
                    continue
                try:
                    result = decoder.decode(line)
                except _UNDECODABLE as error:
                    if line.strip():
                        faults[number] = _decoding_fault(line, error)
                    continue
                if (reason := fault(result, samples=with_samples)) is not None:
                    faults[number] = reason
                    continue
                results.append(result)
        if not results and any(reason != _CUT_SHORT for reason in faults.values()):
            number, reason = next(iter(faults.items()))
            more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
            cause = f"{self.path} holds no result: line {number}: {reason}{more}"
            raise UsageError(cause, "name a file that `mbbench run` wrote")
        for text in _notes(self.path, faults):
            note(text)
        return results


def load(path: Path, *, missing_ok: bool = False) -> Stored:
    """Read the file, unpacked if it is gzip; with `missing_ok`, one that is not there has no lines.

    Raises `UsageError`.
    """
    try:
        content = cache.read_file(path)
        content = cache.unpack(content) if content.startswith(_GZIP) else content
    except OSError as error:  # BadGzipFile too
        if missing_ok and (isinstance(error, FileNotFoundError) or path.is_char_device()):  # /dev/null
            return Stored(path, b"")
        cause = f"cannot read {path} ({error.strerror or error})"
        raise UsageError(cause, "name a file that `mbbench run` wrote") from error
    except (EOFError, zlib.error) as error:
        raise UsageError(f"cannot unpack {path} ({error})", "copy it again, or name another file") from error
    return Stored(path, content.removeprefix(_BYTE_ORDER_MARK))


def read(path: Path, note: Callable[[str], None] = lambda _: None, *, samples: bool = True) -> list[Result]:
    """Return the results in `path` (see `Stored.results`). Raises `UsageError`."""
    return load(path).results(note, samples=samples)


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


def _decoding_fault(line: bytes, error: Exception) -> str:
    """Return why a line is not a result: `measured.latency.n: expected `int` >= 1`."""
    if isinstance(error, MbbenchError):
        return error.cause
    if not isinstance(error, msgspec.ValidationError):
        detail = str(error).removeprefix("JSON is malformed: ")
        position = _PLACE.search(detail)  # a number that was cut short is malformed where the line ends
        at_end = position is not None and int(position[1]) >= len(line) - 1
        return _CUT_SHORT if at_end or detail == "Input data was truncated" else f"it is not JSON ({detail})"
    try:
        version = msgspec.json.decode(line, type=dict[str, object]).get("schema")
    except _UNDECODABLE:
        version = SCHEMA
    if version is None:
        return "it is no record of `mbbench run`"
    if version != SCHEMA:
        return f"it has schema {version}, but this version of mbbench reads {SCHEMA}"
    problem, _, place = str(error).partition(" - at `$")
    problem = problem[0].lower() + problem[1:]
    return f"{place.strip('.`')}: {problem}" if place else problem


def _notes(path: Path, faults: dict[int, str]) -> Iterator[str]:
    """Yield a sentence for each of the first lines that are left out, then one that counts the others."""
    numbers = list(faults)
    for number in numbers[:_MAX_NOTES]:
        yield f"{path} line {number} is left out: {faults[number]}"
    if rest := numbers[_MAX_NOTES:]:
        count = f"{len(rest)} more line{'s' * (len(rest) > 1)} of {path}"
        yield f"{count} {'are' if len(rest) > 1 else 'is'} left out: {_ranges(rest)}"


def _ranges(numbers: Sequence[int]) -> str:
    """Return ascending numbers as `3, 5-8`; the first twelve ranges."""
    ranges: list[tuple[int, int]] = []
    for number in numbers:
        first = ranges.pop()[0] if ranges and ranges[-1][1] == number - 1 else number
        ranges.append((first, number))
    texts = [str(first) if first == last else f"{first}-{last}" for first, last in ranges[:_MAX_RANGES]]
    return ", ".join(texts) + (", ..." if len(ranges) > _MAX_RANGES else "")


def _append(path: Path, line: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
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


def _cannot_write(path: Path, error: OSError, remedy: str) -> UsageError:
    return UsageError(f"cannot write {path} ({error.strerror})", remedy)
