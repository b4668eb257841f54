"""Reading result files and pages for the commands, with a note on standard error for each line that is left out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mbbench.cli.progress import print_status
from mbbench.errors import UsageError

if TYPE_CHECKING:
    from mbbench.result import Result
    from mbbench.store import Stored

_MAX_RESULTS = 500  # on a page: a browser draws more of them too slowly


def read(paths: Sequence[Path], *, samples: bool = True) -> list[Result]:
    """Return the results in all files, in order. Raises `UsageError` if there is none."""
    from mbbench import store

    return _results([store.load(path) for path in paths], samples=samples)


def read_newest(paths: Sequence[Path]) -> tuple[list[Result], int]:
    """Return the results for a page, and how many are left out: the newest cells, if there are too many results.

    Raises `UsageError` if there is none.
    """
    from mbbench import store

    files = [store.load(path) for path in paths]
    if sum(file.count for file in files) <= _MAX_RESULTS:
        return _results(files), 0
    stored = _results(files, samples=False)
    ids = _newest_ids(stored)
    results = {result.id: result for file in files for result in file.results(ids=ids)}
    return list(results.values()), len(stored) - len(results)


def newest(results: Sequence[Result]) -> tuple[Sequence[Result], int]:
    """Return those of `results` that `read_newest` returns, and how many are left out."""
    if len(results) <= _MAX_RESULTS:
        return results, 0
    ids = _newest_ids(results)
    kept = {result.id: result for result in results if result.id in ids}
    return list(kept.values()), len(results) - len(kept)


def _newest_ids(results: Sequence[Result]) -> set[str]:
    from mbbench.analysis.pairing import representatives

    newest = sorted(representatives(results), key=lambda result: result.time_utc)[-_MAX_RESULTS:]
    return {result.id for result in newest}


def read_page(path: Path) -> str:
    """Return the text of an HTML report. Raises `UsageError` if it cannot be read."""
    from mbbench import cache

    try:
        return cache.read_file(path).decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise UsageError(f"cannot read {path} ({reason})", "name an HTML report") from error


def names(paths: Sequence[Path]) -> str:
    return " and ".join(map(str, paths))


def _results(files: Sequence[Stored], *, samples: bool = True) -> list[Result]:
    notes: list[str] = []
    results = [result for file in files for result in file.results(notes.append, samples=samples)]
    if not results:
        reason = f" ({notes[0]})" if notes else ""
        raise UsageError(f"no result in {names([file.path for file in files])}{reason}", "run `mbbench run` first")
    for note in notes:
        print_status(note)
    return results
