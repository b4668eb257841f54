"""Files on their way from one machine's cache to another."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from mbbench import cache
from mbbench.errors import UsageError


@dataclass(frozen=True, slots=True)
class Parcel:
    path: str  # within the folder it comes from, and the one it goes to
    sha256: str
    content: bytes

    @classmethod
    def of(cls, path: Path, folder: Path) -> Parcel:
        content = path.read_bytes()
        return cls(str(path.relative_to(folder)), hashlib.sha256(content).hexdigest(), content)

    def unpack(self, folder: Path) -> Path:
        """Into `folder`, unless there is such a file. Raises `UsageError` for damaged content."""
        path = folder / self.path
        if path.exists():
            return path
        if hashlib.sha256(self.content).hexdigest() != self.sha256:
            raise UsageError(f"{self.path} was damaged on its way", "try again")
        with cache.atomic(path) as temporary:
            temporary.write_bytes(self.content)
        return path
