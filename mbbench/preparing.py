"""From a run's cells to artifacts: backend, data, weights, compression, export. Everything short of measuring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING

from mbbench import data, registry, weights
from mbbench.backend import Backend, Converter, Dialect, pick_device
from mbbench.compress import search
from mbbench.errors import BackendError
from mbbench.events import Announce, Working
from mbbench.export import Exported, convert, export, export_quantized
from mbbench.models import normalization
from mbbench.result import Failure
from mbbench.spec import Cell, RunSpec
from mbbench.weights.recipe import Progress, Recipe

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True)
class Ready:
    """A cell whose backend, data and weights are at hand."""

    cell: Cell
    backend: Backend
    device: str  # as the runtime spells it
    dialect: Dialect
    data: data.Dataset
    weights: weights.Weights


@dataclass(frozen=True, slots=True)
class Failed:
    cell: Cell
    failure: Failure


def prepare_all(spec: RunSpec, announce: Announce) -> list[Ready | Failed]:
    """Look at every backend first, so that no training is spent on a run that cannot end well."""
    backends: list[tuple[Backend, str, Dialect] | Failed] = []
    for cell in spec.cells:
        try:
            backend = registry.load(cell.backend)
            backend.versions()
            device = pick_device(cell.device, backend.devices())
            backends.append((backend, device, _dialect(cell, backend, device)))
        except BackendError as error:
            backends.append(Failed(cell, Failure.of(error)))
            last = error
    if all(isinstance(backend, Failed) for backend in backends):
        raise last
    ready: list[Ready | Failed] = []
    for cell, found in zip(spec.cells, backends, strict=True):
        ready.append(found if isinstance(found, Failed) else _prepare(spec, cell, *found, announce))
    return ready


def prepare(spec: RunSpec, cell: Cell, backend: Backend, device: str, announce: Announce) -> Ready:
    """One cell, for a device that the backend knows. Raises `MbbenchError`."""
    return _prepare(spec, cell, backend, device, _dialect(cell, backend, device), announce)


def _dialect(cell: Cell, backend: Backend, device: str) -> Dialect:
    """What to write for the cell's precision; raises `BackendError` where it would only be emulated."""
    native = backend.native(device)
    if cell.precision not in native:
        raise BackendError(
            f"{cell.backend} has no native {cell.precision} on {device} here and would only emulate it",
            f"choose --precision {', '.join(native)}",
        )
    return native[cell.precision]


def _prepare(spec: RunSpec, cell: Cell, backend: Backend, device: str, dialect: Dialect, announce: Announce) -> Ready:
    test, resolved = weigh(spec, cell, announce)
    return Ready(replace(cell, model=resolved.spec), backend, device, dialect, test, resolved)


def weigh(spec: RunSpec, cell: Cell, announce: Announce) -> tuple[data.Dataset, weights.Weights]:
    """The cell's test images, and its weights, trained if need be. Raises `UsageError`."""

    def decoding(done: int, total: int) -> None:
        announce(Working("decoding images", done, total))

    def training(progress: Progress) -> None:
        announce(Working(f"training {cell.model.label}", progress.step, progress.steps))

    test = data.load(spec.data, cell.model.resolution, "test", limit=spec.images, on_progress=decoding)
    resolved = weights.resolve(
        cell.weights,
        replace(cell.model, classes=test.classes) if test.classes > 1 else cell.model,
        lambda: data.load(spec.data, cell.model.resolution, "train", on_progress=decoding),
        Recipe(),
        training,
    )
    return test, resolved


def make(spec: RunSpec, ready: Ready, announce: Announce) -> tuple[Exported, search.Prepared | None]:
    """The cell's artifact, and for INT8 how it was quantized. Raises `MbbenchError`."""
    cell, format, dialect = ready.cell, ready.backend.formats[0], ready.dialect

    def build() -> nn.Module:
        announce(Working(f"exporting {cell.model.label}", 0, 1))
        return ready.weights.build()

    prepared = _quantize(spec, ready, announce) if cell.precision == "int8" else None
    if prepared is None:
        exported = export(cell.model, ready.weights.info.key, format, build, dialect)
    else:
        exported = export_quantized(partial(prepared.write, dialect), prepared.graph.stem, format, dialect)
    if isinstance(ready.backend, Converter):
        announce(Working(f"converting {cell.model.label} for {cell.backend}", 0, 1))
        exported = convert(exported.artifact(cell.model, spec.settings.batch, cell.precision), ready.backend)
    return exported, prepared


def _quantize(spec: RunSpec, ready: Ready, announce: Announce) -> search.Prepared:
    """Calibrate on images of the training split, never on those of the test, and quantize."""
    model, normal = ready.cell.model, normalization(ready.cell.model.family)
    source = spec.calibration or spec.data
    if source == "random":
        key, load = "random", partial(search.random_calibration, model.resolution)
    else:
        count = search.IMAGES + search.HELD_OUT
        train = data.load(
            source, model.resolution, "train", limit=count,
            on_progress=lambda *done: announce(Working("decoding images to calibrate with", *done)),
        )  # fmt: skip
        labelled = no_labels(ready) is None and train.classes == model.classes
        key = train.fingerprint
        load = partial(search.calibration, *train.arrays(), normal, train.name, key, labelled=labelled)
    return search.prepare(
        model,
        ready.weights.info.key,
        ready.weights.build,
        load,
        key,
        dialect=ready.dialect,
        max_drop=spec.max_drop / 100 if spec.accuracy_control and spec.max_drop is not None else None,
        on_progress=lambda what, *done: announce(Working(what, *done)),
    )


def no_labels(ready: Ready) -> str | None:
    """Why top-1 would mean nothing, if it would."""
    if ready.weights.info.origin == "random":
        return "random weights have no accuracy"
    if ready.data.classes == 1:
        return f"{ready.data.name} has no labels"
    if ready.weights.spec.classes != ready.data.classes:
        return f"the weights know {ready.weights.spec.classes} classes, the data has {ready.data.classes}"
    return None


def versions(ready: Sequence[Ready]) -> dict[str, str]:
    """Of mbbench, of what it computes with, and of the runtimes of these cells."""
    found = {name: metadata.version(name) for name in ("mbbench", "numpy", "torch")}
    for item in ready:
        found |= item.backend.versions()
    return found
