"""The stored records as one JSON array."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from mbbench.result import Result


def render(results: Sequence[Result]) -> str:
    """Return `results` as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(results), indent=2).decode() + "\n"
