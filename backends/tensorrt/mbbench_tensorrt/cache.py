"""What is kept between runs: engines and compiled kernels. Both are code: only what was stored here is given back."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from mbbench import cache


def path_of(key: str, kind: str) -> Path:
    return cache.root() / "tensorrt" / f"{key}.{kind}"


def store(path: Path, content: bytes) -> None:
    """Write the file, and its SHA-256 beside it."""
    for target, what in ((path, content), (_digest_path(path), _digest(content))):
        with cache.atomic(target) as temporary:
            temporary.write_bytes(what)


def recall(path: Path) -> bytes | None:
    """What `store` wrote; None if it is not there, or was changed since."""
    try:
        content, digest = path.read_bytes(), _digest_path(path).read_bytes()
    except OSError:
        return None
    return content if digest == _digest(content) else None


def recall_or(path: Path, make: Callable[[], bytes]) -> tuple[bytes, bool]:
    """What is stored, else what `make` makes, which is then stored; and whether it was made."""
    known = recall(path)
    if known is not None:
        return known, False
    content = make()
    store(path, content)
    return content, True


def _digest_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()
