"""Packing of the records in a page: rows become columns, and samples become planes of bytes.

Similar values are then adjacent, within gzip's window. `page.js` reverses it too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from itertools import islice
from types import NoneType
from typing import Any

import msgspec

from mbbench.errors import MbbenchError
from mbbench.result import SAMPLES_JSON, Result
from mbbench.result.faults import fault

_PACKED_SAMPLES = re.compile(rb'"samples_ms":\[(\d+),(\d+)\]')


def pack(results: Iterable[Result]) -> tuple[bytes, bytes]:
    """Return the records as JSON in columns, with [count, unit] instead of each list of samples, and all samples.

    A sample is an integer, its nanoseconds divided by the unit of its list, in eight bytes. The samples are stored by
    byte position: the lowest byte of every sample, then the next byte of every sample, and so on.
    """
    import numpy as np

    samples: list[int] = []

    def extract(match: re.Match[bytes]) -> bytes:
        samples_ns = [round(float(text) * 1e6) for text in match[1].split(b",") if text]
        unit = math.gcd(*samples_ns) or 1
        samples.extend(ns // unit for ns in samples_ns)
        return b'"samples_ms":[%d,%d]' % (len(samples_ns), unit)

    rows = [msgspec.json.decode(SAMPLES_JSON.sub(extract, msgspec.json.encode(result))) for result in results]
    return msgspec.json.encode(fold(rows)), np.array(samples, "<u8").view("u1").reshape(-1, 8).T.tobytes()


def unpack(columns: bytes, planes: bytes) -> list[Result]:
    """Return the results that were packed. Raises `ValueError` for input that `pack` did not write."""
    import numpy as np

    samples = np.frombuffer(planes, "u1").reshape(8, -1).T.copy().view("<u8").ravel().tolist()
    used = 0

    def insert(match: re.Match[bytes]) -> bytes:
        nonlocal used
        count, unit = int(match[1]), int(match[2])
        samples_ms = [number * unit / 1e6 for number in samples[used : used + count]]
        used += count
        return b'"samples_ms":%s' % msgspec.json.encode(samples_ms)

    try:
        rows = unfold(msgspec.json.decode(columns))
    except (LookupError, TypeError, AttributeError, ArithmeticError, StopIteration) as error:
        raise ValueError(f"the columns do not hold records ({type(error).__name__})") from error
    results = [
        _result(number, _PACKED_SAMPLES.sub(insert, msgspec.json.encode(row))) for number, row in enumerate(rows, 1)
    ]
    if used != len(samples):
        raise ValueError(f"the page holds {len(samples)} samples, but its records count {used}")
    return results


def _result(number: int, line: bytes) -> Result:
    """Return the result in `line`. Raises `ValueError` if it is none."""
    try:
        result = msgspec.json.decode(line, type=Result)
    except (msgspec.MsgspecError, MbbenchError) as error:
        raise ValueError(f"record {number}: {error.cause if isinstance(error, MbbenchError) else error}") from error
    if (reason := fault(result, figures=False)) is not None:
        raise ValueError(f"record {number}: {reason}")
    return result


def fold(rows: list[Any]) -> Any:
    """Transpose rows into columns, recursively.

    A list of objects becomes an object of columns, a list of lists one list; other lists stay unchanged.
    """
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
    shapes = {shape: index for index, shape in enumerate(dict.fromkeys(keys))}
    return {
        "shapes": list(shapes),
        "rows": [shapes[row_keys] for row_keys in keys],
        "columns": {key: fold(column) for key, column in columns.items()},
    }


def unfold(folded: Any) -> list[Any]:
    """Return the list that `fold` was called with."""
    if isinstance(folded, list):
        return folded
    if "lengths" in folded:
        items = iter(unfold(folded["items"]))
        return [None if length is None else list(islice(items, length)) for length in folded["lengths"]]
    columns = {key: iter(unfold(column)) for key, column in folded["columns"].items()}
    shapes = [folded["shapes"][index] for index in folded["rows"]]
    return [None if shape is None else {key: next(columns[key]) for key in shape} for shape in shapes]
