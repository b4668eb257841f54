"""Files that are sent from one machine's cache to another."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from mbbench import cache
from mbbench.errors import UsageError


@dataclass(frozen=True, slots=True)
class Parcel:
    """A file's content, with its checksum."""

    path: str  # relative to the folder that it comes from and to the one it is unpacked into
    sha256: str
    content: bytes

    @classmethod
    def of(cls, path: Path, folder: Path) -> Parcel:
        """Return the file `path`, which is in `folder`, as a parcel."""
        content = path.read_bytes()
        return cls(str(path.relative_to(folder)), hashlib.sha256(content).hexdigest(), content)

    def unpack(self, folder: Path) -> Path:
        """Write the file into `folder`, unless it is there already, and return its path.

        Raises `UsageError` if the content is damaged.
        """
        path = folder / self.path
        if path.exists():
            return path
        if hashlib.sha256(self.content).hexdigest() != self.sha256:
            raise UsageError(f"{self.path} was damaged in transfer", "run the sweep again")
        with cache.atomic(path) as temporary:
            temporary.write_bytes(self.content)
        return path
