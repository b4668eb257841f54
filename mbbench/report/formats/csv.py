"""CSV with a row per cell and a column per scalar of the record, by its dotted name; without raw samples."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from io import StringIO
from typing import Any

import msgspec

from mbbench.result import Result

_PEAK_MEMORY = "measured.memory.steady.peak_rss_bytes"


def render(results: Sequence[Result]) -> str:
    """Return `results` as CSV with a header."""
    rows = [dict(_row(result)) for result in results]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    file = StringIO()
    writer = csv.DictWriter(file, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


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
