"""A cell's artifact as a file with a sidecar that describes it (`mbbench export`).

FILE             the artifact that the backend opens
FILE.json        the sidecar: the cell, what the artifact holds, and the versions that made it
FILE.npz         test images and their reference logits, so that the file is measured without its data and weights:
                 `images` uint8 (N, R, R, 3), `logits` float32 (N, classes) by PyTorch in fp32, and for INT8 `expected`
                 float32 (N, classes) by the Q/DQ graph in floating point

A sidecar does not prove who wrote a file. A file in a format that may run code (all except `DATA_FORMATS`) is therefore
opened only if this machine's cache records that it was built here, or if the user trusts it.
"""

from __future__ import annotations

import shutil
import zlib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from zipfile import BadZipFile

import msgspec

from mbbench import cache, registry
from mbbench.artifacts import prepare, reference
from mbbench.artifacts.export import Exported
from mbbench.artifacts.prepare import Ready, Unavailable
from mbbench.backend import DATA_FORMATS, AheadOfTime, Converter, pick_device
from mbbench.compress.search import Quantization
from mbbench.data import Dataset
from mbbench.errors import UsageError, describe_invalid
from mbbench.events import Announce, Preparing
from mbbench.models import files
from mbbench.models.cost import Cost, cost_of
from mbbench.profile import Profile
from mbbench.result import ArtifactInfo, DataInfo, QuantizationInfo, WeightsInfo
from mbbench.spec import PARITY_IMAGES, Cell, Preprocessing, RunSpec
from mbbench.weights import Weights

_EXPORT_AGAIN = "write it again with `mbbench export`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sidecar:
    """What FILE.json holds.

    `batch`: the batch size that the file is tuned for. `device`: the chip or compute capability it was built for.
    `images_sha256` is that of FILE.npz, and `data` describes its images; None in files exported before 2026-11-27.
    `preprocessing`: None: the default of the network's family. `cost`: of a network in a file, which only the machine
    that exported it can count.
    """

    cell: Cell
    batch: int
    device: str
    weights: WeightsInfo
    artifact: ArtifactInfo
    quantization: QuantizationInfo | None
    versions: dict[str, str]
    images_sha256: str | None = None
    data: DataInfo | None = None
    preprocessing: Preprocessing | None = None
    cost: Cost | None = None


@dataclass(frozen=True, slots=True)
class ReferenceImages:
    """The images in FILE.npz as a data set without labels, and the .npy files of their logits (as in `Job`)."""

    data: Dataset
    logits: Path
    expected: Path


@dataclass(frozen=True, slots=True)
class Bundle:
    """An exported file and its sidecar, to be measured instead of a new export.

    `images`: measure on these, without the data and the weights of the export. None: on those of the run.
    """

    sidecar: Sidecar
    exported: Exported
    images: ReferenceImages | None = None


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
        with registry.guard(cell.backend, "listing its devices"):
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
    announce(Preparing("running the PyTorch reference", 0, 1))
    images_sha256, count = _write_images(ready, quantization, _images_path(target))
    sidecar = Sidecar(
        cell=ready.cell,
        batch=spec.settings.batch,
        device=device,
        weights=ready.weights.info,
        artifact=info,
        quantization=None if quantization is None else quantization.info,
        versions=prepare.versions([ready]) | (dict(backend.tools()) if isinstance(backend, Converter) else {}),
        images_sha256=images_sha256,
        data=replace(ready.data.info, images=count),
        preprocessing=ready.data.special_preprocessing(cell.model.family),
        cost=cost_of(cell.model) if cell.model.is_file else None,
    )
    with cache.atomic(_sidecar_path(target)) as temporary:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(sidecar), indent=2) + b"\n")
    if format not in DATA_FORMATS:
        with cache.atomic(_build_mark(sha256)) as temporary:
            temporary.touch()
    return sidecar


def _write_images(ready: Ready, quantization: Quantization | None, path: Path) -> tuple[str, int]:
    """Write the first `PARITY_IMAGES` test images and their logits to `path`; return its SHA-256 and their number."""
    import numpy as np

    logits, expected = reference.expected_logits(
        ready.weights, ready.data, quantization, ready.dialect, shard=reference.parity_shard(ready.data)
    )
    arrays = {"images": np.load(ready.data.images, mmap_mode="r")[:PARITY_IMAGES], "logits": np.load(logits)}
    if quantization is not None:
        arrays["expected"] = np.load(expected)
    with cache.atomic(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **{name: array[:PARITY_IMAGES] for name, array in arrays.items()})
    return cache.sha256_of(path), len(arrays["images"])


def read(path: Path, *, trust: bool, images: bool = True) -> Bundle:
    """Return the file at `path` with its sidecar and, if `images`, its reference images, as `write` wrote them.

    Raises `UsageError` if one of them cannot be read, if it has changed since, or if the file may be code and was
    not built on this machine. `trust` skips the last two checks.
    """
    sidecar_path = _sidecar_path(path)
    try:
        sidecar = msgspec.json.decode(cache.read_small(sidecar_path), type=Sidecar)
        sha256 = cache.sha256_of(path)
    except OSError as error:
        raise UsageError(f"cannot read {error.filename} ({error.strerror})", _EXPORT_AGAIN) from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(
            f"{sidecar_path} does not describe {path.name} ({describe_invalid(error)})", _EXPORT_AGAIN
        ) from error
    if sha256 != sidecar.artifact.sha256 and not trust:
        raise UsageError(
            f"{path} is not the file that {sidecar_path.name} describes", f"{_EXPORT_AGAIN}, or give --trust"
        )
    if sidecar.artifact.format not in DATA_FORMATS and not _build_mark(sha256).exists() and not trust:
        raise UsageError(
            f"{path} was not built on this machine, and opening a file in the format {sidecar.artifact.format}"
            " may run code from it",
            "give --trust if you know who built it",
        )
    if sidecar.cell.model.is_file and sidecar.cost is not None:
        files.state_cost(sidecar.cell.model, sidecar.cost)
    info = replace(sidecar.artifact, sha256=sha256, size_bytes=path.stat().st_size)
    carried = _read_images(path, sidecar, trust=trust) if images and sidecar.images_sha256 is not None else None
    return Bundle(sidecar, Exported(path.resolve(), info), carried)


def _read_images(path: Path, sidecar: Sidecar, *, trust: bool) -> ReferenceImages:
    """Return the reference images of the file at `path`, copied to .npy files in the cache. Raises `UsageError`."""
    import numpy as np

    images_path, model = _images_path(path), sidecar.cell.model
    try:
        sha256 = cache.sha256_of(images_path)
        if sha256 != sidecar.images_sha256 and not trust:
            raise UsageError(
                f"{images_path} is not the file that {_sidecar_path(path).name} describes",
                f"{_EXPORT_AGAIN}, or give --trust",
            )
        with np.load(images_path, allow_pickle=False) as file:
            arrays = dict(file)
    except OSError as error:
        raise UsageError(f"cannot read {images_path} ({error.strerror or error})", _EXPORT_AGAIN) from error
    except (ValueError, EOFError, BadZipFile, zlib.error) as error:
        raise UsageError(f"{images_path} does not hold arrays ({error})", _EXPORT_AGAIN) from error
    arrays.setdefault("expected", arrays.get("logits"))
    count = len(arrays.get("images", ()))
    shapes = {"images": (count, *model.size, 3)} | dict.fromkeys(("logits", "expected"), (count, model.classes))
    dtypes = {"images": np.uint8, "logits": np.float32, "expected": np.float32}
    for name, shape in shapes.items():
        array = arrays.get(name)
        if count == 0 or array is None or (array.shape, array.dtype) != (shape, dtypes[name]):
            raise UsageError(f"{images_path} does not hold the {name} of {model.label}", _EXPORT_AGAIN)
    arrays["labels"] = np.zeros(count, np.int64)
    paths = {name: cache.root() / "references" / f"{sha256[:16]}.{name}.npy" for name in (*shapes, "labels")}
    for name, target in paths.items():
        with cache.atomic(target) as temporary, temporary.open("wb") as file:
            np.save(file, arrays[name])
    data = Dataset(
        name="the artifact's sidecar",
        images=paths["images"],
        labels=paths["labels"],
        count=count,
        classes=1,  # no labels
        fingerprint=sha256[:16],
        preprocess="" if sidecar.data is None else sidecar.data.preprocess,
        preprocessing=sidecar.preprocessing,
    )
    return ReferenceImages(data, paths["logits"], paths["expected"])


def profile_of(profile: Profile, sidecar: Sidecar) -> Profile:
    """Return the profile with the file's network, backend and precision.

    What the profile does not say about weights and preprocessing is as in the file.
    """
    cell, special = sidecar.cell, sidecar.preprocessing
    names = () if special is None else [field.name for field in fields(special)]
    inputs = {name: getattr(profile, name) or getattr(special, name) for name in names}
    return replace(
        profile,
        model=(cell.model.family,),
        alpha=(cell.model.alpha,),
        res=(cell.model.resolution,),
        variant=cell.model.variant,
        backend=(cell.backend,),
        precision=(cell.precision,),
        weights=profile.weights or cell.weights,
        **inputs,
    )


def prepare_cells(bundle: Bundle, spec: RunSpec, announce: Announce) -> list[Ready | Unavailable]:
    """Return the cells as `prepare_all` does, with the file's dialect in the subject.

    With reference images the subject has these and the file's weights, and nothing is decoded or trained for it.
    Raises `UsageError` if the file holds other weights, and what `prepare_all` raises.
    """
    sidecar, images = bundle.sidecar, bundle.images
    if sidecar.cell.model.is_file and sidecar.cost is None:
        files.path_of(sidecar.cell.model)  # its cost is counted from there

    def resolve(spec: RunSpec, cell: Cell, announce: Announce) -> tuple[Dataset, Weights]:
        if images is None or cell.role != "subject":
            return prepare.resolve_weights(spec, cell, announce)
        if spec.images is not None and spec.images < images.data.count:
            raise UsageError(
                f"--images is below the number of images in the sidecar, {images.data.count}: {spec.images}",
                "leave it out, or name the test images with --data",
            )
        return images.data, Weights(bundle.exported.path, sidecar.cell.model, sidecar.weights)

    updated: list[Ready | Unavailable] = []
    for item in prepare.prepare_all(spec, announce, resolve):
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
    return path.parent / f"{path.name}.json"


def _images_path(path: Path) -> Path:
    return path.parent / f"{path.name}.npz"


def _build_mark(sha256: str) -> Path:
    """Return the path of an empty file that exists if this machine built the file with that SHA-256."""
    return cache.root() / "built" / sha256
