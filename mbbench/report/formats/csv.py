"""CSV with a row per cell and a column per scalar of the record, by its dotted name; without raw samples.

Text that a spreadsheet would take for a formula gets an apostrophe in front. Numbers stay numbers.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from io import StringIO
from typing import Any

import msgspec

from mbbench.errors import visible
from mbbench.result import Result

# A number with a sign, and perhaps a unit and an interval: `-1.2 % [-1.5, -0.9]`.
_NUMBER = re.compile(r"[+-][\d.]+(?:e[+-]?\d+)?(?: ?(?:%|[a-zA-Z/]+))?(?: \[[-+\d., ]+\])?")
_PEAK_MEMORY = "measured.memory.steady.peak_rss_bytes"


def render(results: Sequence[Result]) -> str:
    """Return `results` as CSV with a header."""
    rows = [dict(_row(result)) for result in results]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return render_rows([columns, *([row.get(name, "") for name in columns] for row in rows)])


def render_rows(rows: Iterable[Iterable[object]]) -> str:
    """Return rows of text and numbers as CSV."""
    file = StringIO()
    csv.writer(file, lineterminator="\n").writerows(map(_cell, row) for row in rows)
    return file.getvalue()


def _cell(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = visible(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) and not _NUMBER.fullmatch(text) else text


def _row(result: Result) -> Iterator[tuple[str, object]]:
    """Yield (column, value) for the scalars of the record and for the memory added, which follows from them."""
    added = result.added_rss_bytes()
    for name, value in _flat("", msgspec.to_builtins(result)):
        yield name, value
        if name == _PEAK_MEMORY and added is not None:
            yield "measured.memory.steady.added_rss_bytes", added


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, object]]:
    """Yield (dotted name, scalar), except nulls and lists other than those of names, phases, scenarios and batches."""
    match value:
        case dict():
            for name, inner in value.items():
                yield from _flat(f"{prefix}.{name}" if prefix else name, inner)
        case [{"phase": _}, *_] | [{"scenario": _}, *_]:
            for item in value:
                key = "phase" if "phase" in item else "scenario"
                rest = {name: inner for name, inner in item.items() if name != key}
                yield from _flat(f"{prefix}.{item[key]}", rest)
        case [{"batch": _, "images_per_s": _}, *_]:
            for item in value:
                yield from _flat(f"{prefix}.batch_{item['batch']}", {"images_per_s": item["images_per_s"]})
        case [str(), *_]:
            yield prefix, " ".join(value)
        case list() | tuple() | None:
            return
        case _:
            yield prefix, value
