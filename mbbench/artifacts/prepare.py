"""The steps from the cells of a run to their artifacts.

1. `prepare_all` resolves the backend, test images and weights of every cell; `prepare_cell` those of one cell.
2. `quantize` chooses how to quantize an INT8 cell.
3. `export` writes the artifact, and converts it if the backend needs another format.

`make_artifact` is steps 2 and 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from pathlib import PurePath
from typing import TYPE_CHECKING

from mbbench import data, registry, weights
from mbbench.artifacts import export as exporter
from mbbench.artifacts.export import Exported
from mbbench.backend import Backend, Converter, Dialect, pick_device
from mbbench.compress import calibrate, search
from mbbench.compress.search import Quantization
from mbbench.data.labels import map_labels, statement
from mbbench.errors import BackendError
from mbbench.events import Announce, Preparing, Stated
from mbbench.models import default_preprocessing, files
from mbbench.spec import Cell, Preprocessing, RunSpec
from mbbench.weights.recipe import Progress, Recipe

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True)
class Ready:
    """A cell whose backend, test images and weights are resolved.

    `device` is spelled as the runtime spells it. The labels of `data` are outputs of the network, if `data.labeling`.
    """

    cell: Cell
    backend: Backend
    device: str
    dialect: Dialect
    data: data.Dataset
    weights: weights.Weights

    @property
    def on_cpu(self) -> bool:
        return self.device.lower().startswith("cpu")


ResolveWeights = Callable[[RunSpec, Cell, Announce], tuple[data.Dataset, weights.Weights]]


@dataclass(frozen=True, slots=True)
class Unavailable:
    """A cell whose backend, device or precision is not available here."""

    cell: Cell
    error: BackendError


def prepare_all(spec: RunSpec, announce: Announce, resolve: ResolveWeights | None = None) -> list[Ready | Unavailable]:
    """Return every cell with its backend, test images and weights; train the weights if needed.

    All backends are checked before anything is trained. `resolve` replaces `resolve_weights`. Raises `BackendError` if
    no cell is available, `UsageError` for bad data or weights.
    """
    checked: list[tuple[Backend, str, Dialect] | BackendError] = []
    for cell in spec.cells:
        try:
            checked.append(resolve_backend(cell))
        except BackendError as error:
            checked.append(error)
            last_error = error
    if all(isinstance(entry, BackendError) for entry in checked):
        raise last_error
    return [
        Unavailable(cell, entry) if isinstance(entry, BackendError) else _prepare(spec, cell, *entry, announce, resolve)
        for cell, entry in zip(spec.cells, checked, strict=True)
    ]


def resolve_backend(cell: Cell) -> tuple[Backend, str, Dialect]:
    """Return the cell's backend, its device as the runtime spells it, and the dialect of its precision.

    Raises `BackendError` if one of them is not available here.
    """
    probe = registry.probe(cell.backend)
    device = pick_device(cell.device, probe.devices)
    return probe.backend, device, _dialect(cell, probe.backend, device)


def prepare_cell(spec: RunSpec, cell: Cell, backend: Backend, device: str, announce: Announce) -> Ready:
    """Return one cell with its test images and weights, for a given backend and device. Raises `MbbenchError`.

    `device` is spelled as the runtime spells it, or is a compute capability of an absent device.
    """
    return _prepare(spec, cell, backend, device, _dialect(cell, backend, device), announce)


def _dialect(cell: Cell, backend: Backend, device: str) -> Dialect:
    """Return the dialect of the cell's precision. Raises `BackendError` if the device would only emulate it."""
    with registry.guard(cell.backend, "listing its precisions"):
        native = backend.native(device)
    if cell.precision not in native:
        raise BackendError(
            f"{cell.backend} has no native {cell.precision} on {device} here and would only emulate it",
            f"choose --precision {', '.join(native)}",
        )
    return native[cell.precision]


def _prepare(
    spec: RunSpec,
    cell: Cell,
    backend: Backend,
    device: str,
    dialect: Dialect,
    announce: Announce,
    resolve: ResolveWeights | None = None,
) -> Ready:
    test, resolved = (resolve or resolve_weights)(spec, cell, announce)
    return Ready(replace(cell, model=resolved.spec, device=device), backend, device, dialect, test, resolved)


def preprocessing_of(spec: RunSpec, cell: Cell) -> Preprocessing:
    """Return how images become the cell's inputs: what the options say, or its source, or the default of its family."""
    usual = files.preprocessing_of(cell.model) if cell.model.is_file else None
    return spec.preprocessing.applied_to(usual or default_preprocessing(cell.model.family))


def resolve_weights(spec: RunSpec, cell: Cell, announce: Announce) -> tuple[data.Dataset, weights.Weights]:
    """Return the cell's test images and its weights, trained if needed. Raises `UsageError`.

    A checkpoint is read before any image is decoded. The labels are outputs of the network if they can be mapped to
    them (`data.labels.map_labels`).
    """

    def decoding(done: int, total: int) -> None:
        announce(Preparing("decoding images", done, total))

    def training(progress: Progress) -> None:
        announce(Preparing(f"training {cell.model.label}", progress.step, progress.steps))

    def load(split: data.Split, limit: int | None = None) -> data.Dataset:
        return stated(announce, data.load_split(
            spec.data, cell.model.size, split, limit=limit,
            preprocessing=preprocessing_of(spec, cell), skip_broken=spec.skip_broken, on_progress=decoding,
        ))  # fmt: skip

    classes = data.count_classes(spec.data)
    if cell.weights is None:
        load("test", spec.images)  # a missing test split ends the run before training, not after it
    resolved = weights.resolve(
        cell.weights,
        replace(cell.model, classes=classes) if classes > 1 and not cell.model.is_file else cell.model,
        lambda: load("train"),
        Recipe(),
        training,
    )
    if resolved.info.notes:
        announce(Preparing(f"weights {PurePath(cell.weights or '').name}: {', '.join(resolved.info.notes)}", 0, 0))
    test = load("test", spec.images)
    file = None if resolved.info.origin == "random" else spec.labels
    labeled = map_labels(test, resolved.spec.classes, file)
    if (text := statement(labeled)) is not None:
        announce(Stated(text))
    return labeled, resolved


def stated(announce: Announce, split: data.Dataset) -> data.Dataset:
    """Return `split`, after announcing what the user should know about it."""
    for text in split.statements:
        announce(Stated(text))
    return split


def make_artifact(spec: RunSpec, ready: Ready, announce: Announce) -> Exported:
    """Return the cell's artifact: quantize it if it is INT8, and export it. Raises `MbbenchError`."""
    return export(spec, ready, quantize(spec, ready, announce), announce)


def export(spec: RunSpec, ready: Ready, quantization: Quantization | None, announce: Announce) -> Exported:
    """Return the cell's artifact, converted if the backend is a `Converter`. Raises `MbbenchError`.

    `quantization` is what `quantize` returned for the cell.
    """
    cell, format, dialect = ready.cell, ready.backend.formats[0], ready.dialect

    def build() -> nn.Module:
        announce(Preparing(f"exporting {cell.model.label}", 0, 1))
        return ready.weights.build()

    if quantization is None:
        exported = exporter.export(cell.model, ready.weights.info.key, format, build, dialect)
    else:
        exported = exporter.export_quantized(
            partial(quantization.write, dialect), quantization.graph.stem, format, dialect
        )
    if isinstance(ready.backend, Converter):
        announce(Preparing(f"converting {cell.model.label} for {cell.backend}", 0, 1))
        exported = exporter.convert(exported.artifact(cell.model, spec.settings.batch, cell.precision), ready.backend)
    return exported


def quantize(spec: RunSpec, ready: Ready, announce: Announce) -> Quantization | None:
    """Return the best quantization of an INT8 cell, or None for another precision. Raises `MbbenchError`.

    Calibration uses images of the training split, never of the test split.
    """
    if ready.cell.precision != "int8":
        return None
    model, preprocessing = ready.cell.model, preprocessing_of(spec, ready.cell)
    source = spec.calibration or spec.data
    if source == "random":
        key, load = "random", partial(calibrate.random_calibration, model.size)
    else:
        count = calibrate.CALIBRATION_IMAGES + calibrate.VALIDATION_IMAGES
        train = stated(announce, data.load_split(
            source, model.size, "train", limit=count, preprocessing=preprocessing, skip_broken=spec.skip_broken,
            on_progress=lambda *done: announce(Preparing("decoding calibration images", *done)),
        ))  # fmt: skip
        labeled = reason_without_top1(ready) is None
        if labeled:
            train = map_labels(train, model.classes, spec.labels if source == spec.data else None)
        key = train.key(model.family)
        load = partial(
            calibrate.split_for_calibration, *train.arrays(), preprocessing, train.name, key,
            labeled=labeled and train.labeling is not None,
        )  # fmt: skip
    return search.best_quantization(
        model,
        ready.weights.info.key,
        ready.weights.build,
        load,
        key,
        dialect=ready.dialect,
        max_drop=spec.max_drop / 100 if spec.accuracy_control and spec.max_drop is not None else None,
        on_progress=lambda what, *done: announce(Preparing(what, *done)),
    )


def reason_without_top1(ready: Ready) -> str | None:
    """Return the reason that top-1 is meaningless for this cell, or None."""
    if ready.weights.info.origin == "random":
        return "random weights have no accuracy"
    if ready.data.classes == 1:
        return f"{ready.data.name} has no labels"
    if ready.data.labeling is None:
        return f"the weights have {ready.weights.spec.classes} classes, the data has {ready.data.classes}"
    return None


def versions(cells: Sequence[Ready]) -> dict[str, str]:
    """Return the versions of mbbench, NumPy, PyTorch, and the runtimes of these cells."""
    packages = {name: metadata.version(name) for name in ("mbbench", "numpy", "torch")}
    for cell in cells:
        packages |= cell.backend.versions()
    return packages
