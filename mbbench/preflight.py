"""What a run refuses before any work, and `--plan` likewise: what is known without measuring, training or exporting.

No network and no image is loaded. A backend's runtime is imported only if a device or a precision must be looked up.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from mbbench import data, registry, store, weights
from mbbench.artifacts import prepare
from mbbench.data import labels
from mbbench.errors import BackendError, UsageError
from mbbench.machine import available_memory_bytes, pick_cpus
from mbbench.models import memory
from mbbench.spec import Cell, ModelSpec, RunSpec
from mbbench.weights.recipe import Recipe

_CONCURRENT = {"offline", "server"}  # the scenarios with --streams


def require_measurable(spec: RunSpec, results: Path | None = None, *, own_images: bool = False) -> None:
    """Raise `MbbenchError` if this machine would refuse to measure `spec` and to append its results to `results`.

    `own_images`: an exported file brings its images and weights, so that those of the run are not looked at.
    """
    if results is not None:
        store.require_writable(results)
    pick_cpus(spec.settings.threads)
    require_backends(spec)
    if not own_images:
        require_inputs(spec)
    require_memory(spec)


def require_backends(spec: RunSpec) -> None:
    """Raise `BackendError` if a backend has an unknown name, or if no cell's backend, device and precision exist here.

    A backend that only `all` names may be missing.
    """
    errors: list[BackendError] = []
    setups = _distinct(spec.cells)
    for name in dict.fromkeys(cell.backend for cell in spec.cells):
        registry.require_known(name)
    for cell in setups:
        try:
            if cell.device or cell.precision != "fp32":
                prepare.resolve_backend(cell)
            else:
                with registry.guard(cell.backend, "reading its versions"):
                    registry.load(cell.backend).versions()
        except BackendError as error:
            errors.append(error)
    if len(errors) == len(setups):
        raise errors[-1]


def require_inputs(spec: RunSpec) -> None:
    """Raise `UsageError` if the data, the calibration images, the labels or the weights cannot be used.

    Of a checkpoint, the format is looked at, and the architecture if the file records it.
    """
    data.count_classes(spec.data)
    if spec.calibration not in (None, "random"):
        data.count_classes(str(spec.calibration))
    if spec.labels is not None:
        labels.read_pairs(spec.labels)
    for choice, model in dict.fromkeys((cell.weights, cell.model) for cell in spec.cells):
        weights.require_usable(choice, model)


def require_memory(spec: RunSpec) -> None:
    """Raise `UsageError` if the images of a call, or the training of a network, cannot fit into the memory.

    On another device than a CPU, activations are not counted: it has memory of its own.
    """
    free = available_memory_bytes()
    settings = spec.settings
    streams = settings.streams or 1 if _CONCURRENT & {*settings.scenarios} else 1
    for cell in _largest(spec.cells):
        on_cpu = (cell.device or "cpu").lower().startswith("cpu")
        session = memory.weight_bytes(cell.model, cell.precision) if on_cpu else 0
        activations = memory.activation_bytes(cell.model, cell.precision) if on_cpu else 0
        for name, batch in (("--batch", settings.batch), ("bulk_batch", settings.bulk_batch)):
            per_image = memory.image_bytes(cell.model) + activations
            needed = session + batch * per_image
            most = (free - session) // per_image
            _require_fit(needed, free, f"{name} {batch}", cell.model, f"give at most {max(most, 1)}")
        if streams > 1:
            per_stream = settings.batch * activations  # the weights may be shared
            most = (free - session) // max(per_stream, 1)
            needed = session + streams * per_stream
            _require_fit(needed, free, f"--streams {streams}", cell.model, f"give at most {max(most, 1)}")
        if cell.weights is None and not cell.model.is_file:
            require_training_memory(cell.model)


def require_trainable(name: str, model: ModelSpec) -> None:
    """Raise `UsageError` if the data set `name` is missing, or if training `model` cannot fit into the memory."""
    data.count_classes(name)
    require_training_memory(model)


def require_training_memory(model: ModelSpec) -> None:
    """Raise `UsageError` if training `model` with the usual recipe cannot fit into the memory."""
    batch = Recipe().batch_size
    needed, free = memory.training_bytes(model, batch), available_memory_bytes()
    _require_fit(needed, free, f"training on {batch} images a step", model, "give a smaller --res or --alpha")


def _require_fit(needed: int, free: int, what: str, model: ModelSpec, remedy: str) -> None:
    if needed > free:
        sizes = f"at least {needed / 1e9:.3g} GB are needed, {free / 1e9:.3g} GB are available"
        raise UsageError(f"{what} does not fit into the memory with {model.label}: {sizes}", remedy)


def _distinct(cells: Iterable[Cell]) -> list[Cell]:
    """Return one cell for each backend, device and precision, in their order."""
    return list({(cell.backend, cell.device, cell.precision): cell for cell in cells}.values())


def _largest(cells: Iterable[Cell]) -> list[Cell]:
    """Return the cell with the largest activations of each kind: they grow with alpha times the number of pixels."""
    largest: dict[object, Cell] = {}
    for cell in sorted(cells, key=lambda cell: cell.model.alpha * cell.model.size[0] * cell.model.size[1]):
        kind = replace(cell.model, alpha=1.0, resolution=224, width=None) if not cell.model.is_file else cell.model
        largest[kind, cell.device, cell.precision, cell.weights is None] = cell
    return list(largest.values())
