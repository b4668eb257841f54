"""Times and sizes as they are written on the command line."""

from __future__ import annotations

import re

from mbbench.errors import UsageError

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def parse_seconds(text: str) -> float:
    """Return the seconds in a time such as `100ms`, `90s`, `10m` or `1.5h`. Raises `UsageError`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|min|h)", text.strip())
    if match is None:
        raise UsageError(f"not a time: {text!r}", "write it like 100ms, 90s, 10m or 1h")
    return float(match[1]) * _UNITS[match[2]]


_BYTES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def parse_bytes(text: str) -> float:
    """Return the bytes in a size such as `5MB`, `1.5GB` or `512KiB`. Raises `UsageError`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]+)", text.strip())
    if match is None or match[2] not in _BYTES:
        raise UsageError(f"not a size: {text!r}", f"write it like 5MB, with one of the units {', '.join(_BYTES)}")
    return float(match[1]) * _BYTES[match[2]]
