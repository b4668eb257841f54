"""The stored records as one JSON array, and plain data as JSON."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from mbbench.errors import UNSAFE_TEXT
from mbbench.result import Result


def render(results: Sequence[Result]) -> str:
    """Return `results` as indented JSON."""
    return render_record(results)


def render_record(record: object) -> str:
    """Return plain data as indented JSON."""
    lines = msgspec.json.format(msgspec.json.encode(record), indent=2).decode().split("\n")
    return "\n".join(map(escape_json, lines)) + "\n"


def escape_json(text: str) -> str:
    """Return a line of JSON with control characters as JSON's escapes, which mean the same: a terminal obeys none."""
    return text if text.isprintable() else UNSAFE_TEXT.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
