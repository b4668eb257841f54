"""Numbers, times and sizes as they are written on the command line."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal, localcontext
from typing import TypeVar

from mbbench.errors import UsageError
from mbbench.spec.bounds import BOUNDS, require_countable

_Number = TypeVar("_Number", int, float)

_MILLISECONDS = {"ms": 1, "s": 1000, "m": 60_000, "min": 60_000, "h": 3_600_000}
_BYTES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_DIGITS = 60  # of the numbers of a range: enough to count the longest


def parse_time(option: str, text: str, unit: str) -> float:
    """Return a time such as `100ms`, `90s`, `10m` or `1.5h` in `unit`. Raises `UsageError`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|min|h)", text.strip())
    if match is None:
        raise UsageError(f"{option} is not a time: {text!r}", "write it like 100ms, 90s, 10m or 1h")
    return float(match[1]) * _MILLISECONDS[match[2]] / _MILLISECONDS[unit]


def time_within_bounds(field: str, text: str) -> float:
    """Return the time in the value of an option, as `BOUNDS[field]` limits it and in its unit. Raises `UsageError`."""
    bound = BOUNDS[field]
    time = parse_time(bound.name, text, bound.unit)
    bound.require(time, text)
    return time


def bytes_within_bounds(field: str, text: str) -> float:
    """Return the bytes in a size such as `5MB`, `1.5GB` or `512KiB`; `BOUNDS[field]` is in GB. Raises `UsageError`."""
    bound = BOUNDS[field]
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]+)", text.strip())
    if match is None or match[2] not in _BYTES:
        remedy = f"write it like 5MB, with one of the units {', '.join(_BYTES)}"
        raise UsageError(f"{bound.name} is not a size: {text!r}", remedy)
    size = float(match[1]) * _BYTES[match[2]]
    bound.require(size / 1e9, text)
    return size


def parse_numbers(option: str, kind: Callable[[str], _Number], text: str) -> tuple[_Number, ...]:
    """Return the numbers in a list such as `128,224`, whose items may be ranges: `128-224+32`.

    The numbers are counted before they are listed. Raises `UsageError`.
    """
    items = text.split(",")
    try:
        ranges = [_parse_range(option, item) for item in items]
        count = sum(1 if steps is None else steps[2] for steps in ranges)
        require_countable(f"{option} lists too many numbers", count)
        return tuple(
            kind(number)
            for item, steps in zip(items, ranges, strict=True)
            for number in ([item] if steps is None else [str(steps[0] + steps[1] * index) for index in range(steps[2])])
        )
    except ValueError:
        example = "0.5,1.0 or 0.25-1+0.25" if kind is float else "128,224 or 128-224+32"
        shown = text or repr(text)
        raise UsageError(f"{option} is not a list of numbers: {shown}", f"write it like {option} {example}") from None


def _parse_range(option: str, item: str) -> tuple[Decimal, Decimal, int] | None:
    """Return the first number, the step and the length of the range `FIRST-LAST+STEP`; None if it is not a range.

    Raises `UsageError` if the range is empty, and `ValueError` if it is malformed.
    """
    match = re.fullmatch(r"([\d.]+)-([\d.]+)\+([\d.]+)", item.strip())
    if match is None:
        return None
    if len(item) > _DIGITS:
        raise ValueError(item)
    try:
        with localcontext(prec=_DIGITS):
            first, last, step = map(Decimal, match.groups())
            count = int((last - first) / step) + 1
    except ArithmeticError as error:
        raise ValueError(item) from error
    if last < first:
        raise UsageError(f"{option} has an empty range: {item.strip()}", "put the smaller number first")
    return first, step, count
