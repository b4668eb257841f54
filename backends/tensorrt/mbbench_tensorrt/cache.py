"""Cache of engines and compiled kernels. Both are executable code: a file that has changed is never returned."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from mbbench import cache


def path_of(key: str, kind: str) -> Path:
    """Return the path of a cache entry."""
    return cache.root() / "tensorrt" / f"{key}.{kind}"


def store(path: Path, content: bytes) -> None:
    """Write the file and, next to it, its SHA-256."""
    for target, data in ((path, content), (_digest_path(path), _digest(content))):
        with cache.atomic(target) as temporary:
            temporary.write_bytes(data)


def recall(path: Path) -> bytes | None:
    """Return the content that `store` wrote, or None if it is missing or has changed."""
    try:
        content, digest = path.read_bytes(), _digest_path(path).read_bytes()
    except OSError:
        return None
    return content if digest == _digest(content) else None


def recall_or_make(path: Path, make: Callable[[], bytes]) -> tuple[bytes, bool]:
    """Return the stored content and False, or the result of `make`, which is then stored, and True."""
    stored = recall(path)
    if stored is not None:
        return stored, False
    content = make()
    store(path, content)
    return content, True


def _digest_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()
