"""What a gate compares with: artifacts kept in a folder under their content's SHA-256, and whose they are.

DIR/baseline.json        one entry a cell
DIR/ab12....onnx         the artifacts, each once
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from mbbench import cache
from mbbench.artifacts.export import Exported
from mbbench.backend import Artifact
from mbbench.compare.changes import name_of
from mbbench.errors import UsageError
from mbbench.result import ArtifactInfo
from mbbench.spec import Cell

_MANIFEST = "baseline.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    cell: Cell
    artifact: ArtifactInfo
    versions: dict[str, str]

    @property
    def file(self) -> str:
        return f"{self.artifact.sha256[:16]}.{self.artifact.format}"


def keep(folder: Path, made: Sequence[tuple[Cell, Exported, dict[str, str]]]) -> None:
    """Make `folder` hold these cells' artifacts in place of what was kept there; other files in it stay.

    Raises `UsageError` where it cannot be written.
    """
    entries = [Kept(cell=cell, artifact=exported.info, versions=versions) for cell, exported, versions in made]
    for entry, (_, exported, _) in zip(entries, made, strict=True):
        with cache.atomic(folder / entry.file) as temporary:
            shutil.copyfile(exported.path, temporary)
    before = {entry.file for entry in load(folder)} if (folder / _MANIFEST).exists() else set()
    with cache.atomic(folder / _MANIFEST) as temporary:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(entries), indent=2) + b"\n")
    for file in before - {entry.file for entry in entries}:
        (folder / file).unlink(missing_ok=True)


def load(folder: Path) -> list[Kept]:
    """Raises `UsageError` where `keep` wrote nothing."""
    remedy = "write it with `mbbench keep DIR`, or give --base-ref"
    try:
        return msgspec.json.decode((folder / _MANIFEST).read_bytes(), type=list[Kept])
    except OSError as error:
        raise UsageError(f"{folder} holds no baseline ({error.strerror})", remedy) from error
    except msgspec.MsgspecError as error:
        raise UsageError(f"{folder / _MANIFEST} is damaged: {error}", remedy) from error


def find(kept: Sequence[Kept], folder: Path, cell: Cell, batch: int) -> Artifact:
    """The baseline of `cell`: the same network in name, backend, device and precision.

    Its widths and weights may be others: that is what is compared. Raises `UsageError` where there is none, or its file
    is not what was kept.
    """
    for entry in kept:
        if name_of(entry.cell) == name_of(cell):
            path = folder / entry.file
            try:
                digest = cache.sha256_of(path)
            except OSError as error:
                raise UsageError(f"cannot read the baseline {path} ({error.strerror})", "keep it anew") from error
            if digest != entry.artifact.sha256:
                raise UsageError(f"the baseline {path} is not the file that was kept", "keep it anew")
            return Exported(path, entry.artifact).artifact(entry.cell.model, batch, entry.cell.precision)
    known = ", ".join(f"{k.cell.model.label} {k.cell.precision} on {k.cell.backend}" for k in kept)
    raise UsageError(
        f"the baseline has no {cell.model.label} {cell.precision} on {cell.backend}",
        f"keep it anew; it has {known or 'nothing'}",
    )


@contextmanager
def built_from(ref: str, options: Sequence[str]) -> Iterator[Path]:
    """A folder with what `mbbench keep DIR *options` makes of the commit `ref`, in a work tree of its own.

    The commit's own code makes it where the repository is mbbench's. Raises `UsageError` with git's or mbbench's words.
    """
    with tempfile.TemporaryDirectory(prefix="mbbench-base-") as temporary:
        tree, folder = Path(temporary, "tree"), Path(temporary, "baseline")
        prefix = _run(["git", "rev-parse", "--show-prefix"], Path(), f"--base-ref {ref} needs a git repository")
        _run(["git", "worktree", "add", "--detach", str(tree), ref], Path(), f"cannot check out {ref}")
        try:
            command = [sys.executable, "-m", "mbbench", "keep", str(folder), *options]
            _run(command, tree / prefix, f"cannot build the baseline from {ref}")
            yield folder
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(tree)], capture_output=True)


def _run(command: Sequence[str], folder: Path, cause: str) -> str:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env={**os.environ, "NO_COLOR": "1"})
    except OSError as error:
        raise UsageError(f"{cause} ({error})", "install git, or give --baseline") from error
    if done.returncode != 0:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise UsageError(f"{cause}: {said[-1] if said else done.returncode}", "give another ref, or --baseline")
    return done.stdout.strip()
