"""One line a cell: every scalar of the record under its dotted name; the raw samples stay in the JSON."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from io import StringIO
from typing import Any

import msgspec

from mbbench.result import Result


def render(results: Sequence[Result]) -> str:
    rows = [dict(_flat("", msgspec.to_builtins(result))) for result in results]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    file = StringIO()
    writer = csv.DictWriter(file, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, object]]:
    """(dotted name, scalar); what is null is left out, and so are lists but those of names, phases and scenarios."""
    match value:
        case dict():
            for name, inner in value.items():
                yield from _flat(f"{prefix}.{name}" if prefix else name, inner)
        case [{"phase": _}, *_] | [{"scenario": _}, *_]:
            for item in value:
                key = "phase" if "phase" in item else "scenario"
                rest = {name: inner for name, inner in item.items() if name != key}
                yield from _flat(f"{prefix}.{item[key]}", rest)
        case [str(), *_]:
            yield prefix, " ".join(value)
        case list() | tuple() | None:
            return
        case _:
            yield prefix, value
