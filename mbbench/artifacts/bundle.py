"""A cell's artifact as a file with a sidecar that describes it (`mbbench export`).

FILE             the artifact that the backend opens
FILE.json        the sidecar: the cell, what the artifact holds, and the versions that made it

A sidecar does not prove who wrote a file. A file in a format that runs code (`CODE`) is therefore opened only if this
machine's cache records that it was built here, or if the user trusts it.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from mbbench import cache, registry
from mbbench.artifacts import prepare
from mbbench.artifacts.export import Exported
from mbbench.artifacts.prepare import Ready, Unavailable
from mbbench.backend import CODE, AheadOfTime, Converter, pick_device
from mbbench.errors import UsageError
from mbbench.events import Announce, Preparing
from mbbench.profile import Profile
from mbbench.result import ArtifactInfo, QuantizationInfo, WeightsInfo
from mbbench.spec import Cell, RunSpec

_EXPORT_AGAIN = "write it again with `mbbench export`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sidecar:
    """What FILE.json holds.

    `batch`: the batch size that the file is tuned for. `device`: the chip or compute capability it was built for.
    """

    cell: Cell
    batch: int
    device: str
    weights: WeightsInfo
    artifact: ArtifactInfo
    quantization: QuantizationInfo | None
    versions: dict[str, str]


@dataclass(frozen=True, slots=True)
class Bundle:
    """An exported file and its sidecar, to be measured instead of a new export."""

    sidecar: Sidecar
    exported: Exported


def write(spec: RunSpec, target: Path, compute_capability: str | None, announce: Announce) -> Sidecar:
    """Write the artifact of the only cell to `target`, next to its sidecar, and return the sidecar.

    A backend that compiles ahead of time builds the artifact first. With a compute capability the device may be absent.
    Raises `MbbenchError`.
    """
    if len(spec.cells) != 1:
        raise UsageError(f"one file holds one cell (got {len(spec.cells)})", "name one network, precision and backend")
    cell = spec.cells[0]
    backend = registry.load(cell.backend)
    if compute_capability is None:
        device = pick_device(cell.device, backend.devices())
    elif isinstance(backend, AheadOfTime):
        device = compute_capability
    else:
        raise UsageError(f"{cell.backend} does not build ahead of time", "leave out --compute-capability")
    ready = prepare.prepare_cell(spec, cell, backend, device, announce)
    quantization = prepare.quantize(spec, ready, announce)
    exported = prepare.export(spec, ready, quantization, announce)
    with cache.atomic(target) as temporary:
        if isinstance(backend, AheadOfTime):
            announce(Preparing(f"building {cell.model.label} for {device}", 0, 1))
            backend.build(exported.artifact(ready.cell.model, spec.settings.batch, cell.precision), temporary, device)
        else:
            shutil.copyfile(exported.path, temporary)
        format = backend.builds if isinstance(backend, AheadOfTime) else exported.info.format
        size, sha256 = temporary.stat().st_size, cache.sha256_of(temporary)
    info = replace(exported.info, format=format, size_bytes=size, sha256=sha256)
    sidecar = Sidecar(
        cell=ready.cell,
        batch=spec.settings.batch,
        device=device,
        weights=ready.weights.info,
        artifact=info,
        quantization=None if quantization is None else quantization.info,
        versions=prepare.versions([ready]) | (dict(backend.tools()) if isinstance(backend, Converter) else {}),
    )
    with cache.atomic(_sidecar_path(target)) as temporary:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(sidecar), indent=2) + b"\n")
    if format in CODE:
        with cache.atomic(_build_mark(sha256)) as temporary:
            temporary.touch()
    return sidecar


def read(path: Path, *, trust: bool) -> Bundle:
    """Return the file at `path` with its sidecar, as `write` wrote them.

    Raises `UsageError` if one of them cannot be read, if the file has changed since, or if it is code that was not
    built on this machine. `trust` skips the last two checks.
    """
    sidecar_path = _sidecar_path(path)
    try:
        sidecar = msgspec.json.decode(sidecar_path.read_bytes(), type=Sidecar)
        sha256 = cache.sha256_of(path)
    except OSError as error:
        raise UsageError(f"cannot read {error.filename} ({error.strerror})", _EXPORT_AGAIN) from error
    except msgspec.MsgspecError as error:
        raise UsageError(f"{sidecar_path} does not describe {path.name} ({error})", _EXPORT_AGAIN) from error
    if sha256 != sidecar.artifact.sha256 and not trust:
        raise UsageError(
            f"{path} is not the file that {sidecar_path.name} describes", f"{_EXPORT_AGAIN}, or give --trust"
        )
    if sidecar.artifact.format in CODE and not _build_mark(sha256).exists() and not trust:
        raise UsageError(
            f"{path} is code that was not built on this machine, and opening it runs that code",
            "give --trust if you know who built it",
        )
    info = replace(sidecar.artifact, sha256=sha256, size_bytes=path.stat().st_size)
    return Bundle(sidecar, Exported(path.resolve(), info))


def profile_of(profile: Profile, sidecar: Sidecar) -> Profile:
    """Return the profile with the file's network, backend and precision, and its weights if the profile names none."""
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


def with_dialect(bundle: Bundle, cells: Sequence[Ready | Unavailable]) -> list[Ready | Unavailable]:
    """Return the cells, with the file's dialect in the subject. Raises `UsageError` if the file holds other weights."""
    sidecar = bundle.sidecar
    updated: list[Ready | Unavailable] = []
    for item in cells:
        if isinstance(item, Ready) and item.cell.role == "subject":
            if (item.cell.model, item.weights.info.key) != (sidecar.cell.model, sidecar.weights.key):
                weights = f"{sidecar.weights.origin}, {sidecar.weights.key}"
                raise UsageError(
                    f"{bundle.exported.path.name} was exported from other weights ({weights})",
                    "give the --weights and --data of that export",
                )
            item = replace(item, dialect=sidecar.artifact.dialect)  # type: ignore[arg-type]
        updated.append(item)
    return updated


def _sidecar_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _build_mark(sha256: str) -> Path:
    """Return the path of an empty file that exists if this machine built the file with that SHA-256."""
    return cache.root() / "built" / sha256
