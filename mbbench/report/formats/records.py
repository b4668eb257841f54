"""The records that a page carries, packed: columns in place of rows, and the samples as planes of bytes.

What is alike then stands side by side, within the reach of gzip's window. `page.js` unpacks the same.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from itertools import islice
from types import NoneType
from typing import Any

import msgspec

from mbbench.result import SAMPLES_JSON, Result

_PACKED = re.compile(rb'"samples_ms":\[(\d+),(\d+)\]')


def pack(results: Iterable[Result]) -> tuple[bytes, bytes]:
    """The records in columns, as JSON, with [count, unit] in place of each list of samples; and the samples of all.

    A sample is a number of nanoseconds over its list's unit, in eight bytes: the lowest of every sample, then the next
    of every sample, and so on.
    """
    import numpy as np

    samples: list[int] = []

    def cut(match: re.Match[bytes]) -> bytes:
        own = [round(float(text) * 1e6) for text in match[1].split(b",") if text]
        unit = math.gcd(*own) or 1
        samples.extend(ns // unit for ns in own)
        return b'"samples_ms":[%d,%d]' % (len(own), unit)

    rows = [msgspec.json.decode(SAMPLES_JSON.sub(cut, msgspec.json.encode(result))) for result in results]
    return msgspec.json.encode(fold(rows)), np.array(samples, "<u8").view("u1").reshape(-1, 8).T.tobytes()


def unpack(columns: bytes, planes: bytes) -> list[Result]:
    """The results again; raises `ValueError` for what `pack` did not write."""
    import numpy as np

    samples = np.frombuffer(planes, "u1").reshape(8, -1).T.copy().view("<u8").ravel().tolist()
    used = 0

    def fill(match: re.Match[bytes]) -> bytes:
        nonlocal used
        count, unit = int(match[1]), int(match[2])
        own = samples[used : used + count]
        used += count
        return b'"samples_ms":%s' % msgspec.json.encode([number * unit / 1e6 for number in own])

    try:
        rows = unfold(msgspec.json.decode(columns))
    except (LookupError, TypeError, StopIteration) as error:
        raise ValueError(f"the columns are no records ({type(error).__name__})") from error
    found = [msgspec.json.decode(_PACKED.sub(fill, msgspec.json.encode(row)), type=Result) for row in rows]
    if used != len(samples):
        raise ValueError(f"{len(samples)} samples are there, {used} are counted")
    return found


def fold(rows: list[Any]) -> Any:
    """Objects of a list as one object of columns, lists of a list as one list, and so on within; the rest as it is."""
    kinds = {type(row) for row in rows} - {NoneType}
    if kinds == {list}:
        items = [item for row in rows if row is not None for item in row]
        return {"lengths": [None if row is None else len(row) for row in rows], "items": fold(items)}
    if kinds != {dict}:
        return rows
    columns: dict[str, list[Any]] = {}
    for row in rows:
        for key, value in (row or {}).items():
            columns.setdefault(key, []).append(value)
    keys = [None if row is None else tuple(row) for row in rows]
    shapes = {shape: place for place, shape in enumerate(dict.fromkeys(keys))}
    return {
        "shapes": list(shapes),
        "rows": [shapes[own] for own in keys],
        "columns": {key: fold(column) for key, column in columns.items()},
    }


def unfold(folded: Any) -> list[Any]:
    """What `fold` was given."""
    if isinstance(folded, list):
        return folded
    if "lengths" in folded:
        items = iter(unfold(folded["items"]))
        return [None if length is None else list(islice(items, length)) for length in folded["lengths"]]
    columns = {key: iter(unfold(column)) for key, column in folded["columns"].items()}
    shapes = [folded["shapes"][place] for place in folded["rows"]]
    return [None if shape is None else {key: next(columns[key]) for key in shape} for shape in shapes]
