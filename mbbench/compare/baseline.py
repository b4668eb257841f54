"""The baseline of a gate: a folder of artifacts, each named after its SHA-256, and a manifest of their cells.

DIR/baseline.json        one entry per cell
DIR/ab12....onnx         the artifacts, each stored once
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from mbbench import cache
from mbbench.artifacts.export import Exported
from mbbench.backend import Artifact
from mbbench.compare.changes import comparison_key
from mbbench.errors import UsageError, describe_invalid
from mbbench.result import ArtifactInfo
from mbbench.spec import Cell

_MANIFEST = "baseline.json"
_WRITE_AGAIN = "write the baseline again with `mbbench keep`"


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineEntry:
    """One cell of the manifest: its artifact and the versions that made it."""

    cell: Cell
    artifact: ArtifactInfo
    versions: dict[str, str]

    @property
    def file_name(self) -> str:
        return f"{self.artifact.sha256[:16]}.{self.artifact.format}"


def write(folder: Path, artifacts: Sequence[tuple[Cell, Exported, dict[str, str]]]) -> None:
    """Write the cells' artifacts and the manifest, and delete the artifacts of the baseline they replace.

    The third item of each tuple are the versions. Other files in `folder` are left alone. Raises `UsageError` if
    `folder` cannot be written.
    """
    entries = [
        BaselineEntry(cell=cell, artifact=exported.info, versions=versions) for cell, exported, versions in artifacts
    ]
    for entry, (_, exported, _) in zip(entries, artifacts, strict=True):
        with cache.atomic(folder / entry.file_name) as temporary:
            shutil.copyfile(exported.path, temporary)
    replaced = {entry.file_name for entry in read_manifest(folder)} if (folder / _MANIFEST).exists() else set()
    with cache.atomic(folder / _MANIFEST) as temporary:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(entries), indent=2) + b"\n")
    for file_name in replaced - {entry.file_name for entry in entries}:
        (folder / file_name).unlink(missing_ok=True)


def read_manifest(folder: Path) -> list[BaselineEntry]:
    """Return the entries of the baseline in `folder`. Raises `UsageError` if it has no readable manifest."""
    path, remedy = folder / _MANIFEST, f"write one with `mbbench keep {folder}`, or use --base-ref"
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[BaselineEntry])
    except OSError as error:
        raise UsageError(f"there is no baseline in {folder} ({error.strerror})", remedy) from error
    except msgspec.MsgspecError as error:
        raise UsageError(f"the manifest {path} is damaged: {describe_invalid(error)}", remedy) from error


def find_artifact(entries: Sequence[BaselineEntry], folder: Path, cell: Cell, batch: int) -> Artifact:
    """Return the baseline's artifact for `cell`, matched by `comparison_key`.

    Raises `UsageError` if there is none, or if its file does not have the recorded SHA-256.
    """
    for entry in entries:
        device = entry.cell.device or cell.device  # earlier versions record no name for the default device
        if comparison_key(replace(entry.cell, device=device)) == comparison_key(cell):
            path = folder / entry.file_name
            try:
                sha256 = cache.sha256_of(path)
            except OSError as error:
                raise UsageError(f"cannot read the baseline's {path} ({error.strerror})", _WRITE_AGAIN) from error
            if sha256 != entry.artifact.sha256:
                raise UsageError(f"the baseline's {path} does not have its recorded SHA-256", _WRITE_AGAIN)
            return Exported(path, entry.artifact).artifact(entry.cell.model, batch, entry.cell.precision)
    available = ", ".join(_label(entry.cell) for entry in entries) or "no cells"
    raise UsageError(f"the baseline has no {_label(cell)} (it has {available})", _WRITE_AGAIN)


def _label(cell: Cell) -> str:
    return f"{cell.model.label} {cell.precision} on {cell.backend}"


@contextmanager
def build_from_commit(ref: str, options: Sequence[str]) -> Iterator[Path]:
    """Yield a temporary folder with the baseline that `mbbench keep DIR *options` writes in a work tree of `ref`.

    If the repository is mbbench's own, the commit's code builds the baseline. Raises `UsageError` with the last line
    that git or mbbench wrote to standard error.
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
    """Return what `command` prints when run in `folder`. Raises `UsageError`, beginning with `cause`, if it fails."""
    try:
        process = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, env={**os.environ, "NO_COLOR": "1"}
        )
    except OSError as error:
        raise UsageError(f"{cause} ({error})", "install git, or use --baseline") from error
    if process.returncode != 0:
        lines = [line.strip() for line in process.stderr.splitlines() if line.strip()]
        detail = lines[-1] if lines else f"exit code {process.returncode}"
        raise UsageError(f"{cause}: {detail}", "name another commit, or use --baseline")
    return process.stdout.strip()
