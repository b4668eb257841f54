"""Images that cannot be decoded: the error that lists them all, and what is said if --skip-broken leaves them out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mbbench.errors import UsageError, list_first

_MAX_LISTED = 10


@dataclass(frozen=True, slots=True)
class Broken:
    """The reason why an image cannot be decoded."""

    cause: str


def error(name: str, files: Sequence[tuple[str, Broken]], total: int) -> UsageError:
    """Return the error for the broken `files` (path, reason) among `total` images of the data set `name`."""
    listed = list_first([f"{path} ({broken.cause})" for path, broken in files], _MAX_LISTED)
    if len(files) == 1:
        return UsageError(f"cannot decode {listed}", "replace or remove the file, or give --skip-broken")
    return UsageError(
        f"{len(files)} of {total} images of {name} cannot be decoded: {listed}",
        "replace or remove these files, or give --skip-broken",
    )


def statement(name: str, split: str, paths: Sequence[str], total: int) -> str:
    """Return which of the `total` images of a split are left out."""
    kind = "training" if split == "train" else "test"
    listed = list_first(paths, _MAX_LISTED)
    return f"{name}: {len(paths)} of {total} {kind} images cannot be decoded and are left out: {listed}"
