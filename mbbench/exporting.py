"""A cell's artifact as a file of the user's own, with a sidecar that says what it is; and from there to a run.

FILE             what the backend opens
FILE.json        whose it is, what it holds and what made it

A sidecar says what a file is, not who wrote it. Where opening a file runs what is in it (`CODE`), it must be known to
this machine's cache as built here.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from mbbench import cache, preparing, registry
from mbbench.backend import CODE, AheadOfTime, Converter, pick_device
from mbbench.errors import UsageError
from mbbench.events import Announce, Working
from mbbench.export import Exported
from mbbench.preparing import Failed, Ready
from mbbench.profile import Profile
from mbbench.result import ArtifactInfo, QuantizationInfo, WeightsInfo
from mbbench.spec import Cell, RunSpec

_AGAIN = "write it again with `mbbench export`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sidecar:
    cell: Cell
    batch: int  # what the file is tuned for, if it is for any
    device: str  # what it was made on, or the compute capability that it was built for
    weights: WeightsInfo
    artifact: ArtifactInfo
    quantization: QuantizationInfo | None
    versions: dict[str, str]


@dataclass(frozen=True, slots=True)
class Given:
    """A file to be measured in place of what would be exported."""

    sidecar: Sidecar
    exported: Exported


def export(spec: RunSpec, target: Path, compute_capability: str | None, announce: Announce) -> Sidecar:
    """Write `target` and its sidecar: the artifact of the one cell, built for its device where the backend builds.

    With a compute capability the device need not be here. Raises `MbbenchError`.
    """
    if len(spec.cells) != 1:
        raise UsageError(f"{len(spec.cells)} cells do not fit one file", "name one network, precision and backend")
    cell = spec.cells[0]
    backend = registry.load(cell.backend)
    if compute_capability is None:
        device = pick_device(cell.device, backend.devices())
    elif isinstance(backend, AheadOfTime):
        device = compute_capability
    else:
        raise UsageError(f"{cell.backend} builds nothing ahead of time", "leave out --compute-capability")
    ready = preparing.prepare(spec, cell, backend, device, announce)
    exported, prepared = preparing.make(spec, ready, announce)
    with cache.atomic(target) as temporary:
        if isinstance(backend, AheadOfTime):
            announce(Working(f"building {cell.model.label} for {device}", 0, 1))
            backend.build(exported.artifact(ready.cell.model, spec.settings.batch, cell.precision), temporary, device)
        else:
            shutil.copyfile(exported.path, temporary)
        format = backend.builds if isinstance(backend, AheadOfTime) else exported.info.format
        info = replace(exported.info, format=format, size_bytes=temporary.stat().st_size, sha256=_sha256(temporary))
    sidecar = Sidecar(
        cell=ready.cell,
        batch=spec.settings.batch,
        device=device,
        weights=ready.weights.info,
        artifact=info,
        quantization=None if prepared is None else prepared.info,
        versions=preparing.versions([ready]) | (dict(backend.tools()) if isinstance(backend, Converter) else {}),
    )
    with cache.atomic(_sidecar_path(target)) as temporary:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(sidecar), indent=2) + b"\n")
    if format in CODE:
        with cache.atomic(_note(info.sha256)) as temporary:
            temporary.touch()
    return sidecar


def read(path: Path, *, trust: bool) -> Given:
    """What `export` wrote; raises `UsageError` for what was changed since, and for code that was not built here.

    With `trust` neither is asked.
    """
    beside = _sidecar_path(path)
    try:
        sidecar = msgspec.json.decode(beside.read_bytes(), type=Sidecar)
        sha256 = _sha256(path)
    except OSError as error:
        raise UsageError(f"cannot read {error.filename} ({error.strerror})", _AGAIN) from error
    except msgspec.MsgspecError as error:
        raise UsageError(f"{beside} does not say what {path.name} is ({error})", _AGAIN) from error
    if sha256 != sidecar.artifact.sha256 and not trust:
        raise UsageError(f"{path} is not the file that {beside.name} describes", f"{_AGAIN}, or give --trust")
    if sidecar.artifact.format in CODE and not _note(sha256).exists() and not trust:
        raise UsageError(
            f"{path} is code that was not built here, and opening it would run it",
            "give --trust if you know who built it",
        )
    info = replace(sidecar.artifact, sha256=sha256, size_bytes=path.stat().st_size)
    return Given(sidecar, Exported(path.resolve(), info))


def asked_for(profile: Profile, sidecar: Sidecar) -> Profile:
    """The profile with the file's network, backend and precision, and its weights where the profile names none."""
    cell = sidecar.cell
    return replace(
        profile,
        model=(cell.model.family,),
        alpha=(cell.model.alpha,),
        res=(cell.model.resolution,),
        variant=cell.model.variant,
        backend=(cell.backend,),
        precision=(cell.precision,),
        weights=profile.weights or cell.weights,
    )


def in_place(given: Given, prepared: Sequence[Ready | Failed]) -> list[Ready | Failed]:
    """The cells with the file's dialect for the subject; raises `UsageError` where that has other weights than it."""
    found: list[Ready | Failed] = []
    for item in prepared:
        if isinstance(item, Ready) and item.cell.role == "subject":
            own = given.sidecar
            if (item.cell.model, item.weights.info.key) != (own.cell.model, own.weights.key):
                raise UsageError(
                    f"{given.exported.path.name} holds other weights ({own.weights.origin}, {own.weights.key})",
                    "give the --weights and --data that it was exported with",
                )
            item = replace(item, dialect=own.artifact.dialect)  # type: ignore[arg-type]
        found.append(item)
    return found


def _sidecar_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _note(sha256: str) -> Path:
    """An empty file, which is there if this machine built what has that SHA-256."""
    return cache.root() / "built" / sha256


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
