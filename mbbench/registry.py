"""Installed backends by name, from the entry points of their distributions."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points

from mbbench.backend import Backend
from mbbench.errors import BackendError
from mbbench.spec import Precision

GROUP = "mbbench.backends"
# The backends in mbbench's repository, under backends/.
_IN_REPOSITORY = ("torch", "torch-eager", "onnxruntime", "openvino", "tensorrt", "litert", "executorch", "ncnn")


def names() -> tuple[str, ...]:
    """Return the names of the installed backends, sorted, without importing any."""
    return tuple(sorted({point.name for point in entry_points(group=GROUP)}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """A backend's versions, devices and precisions. `error`: why it cannot start here, with the remedy."""

    name: str
    versions: dict[str, str] = field(default_factory=dict)
    devices: dict[str, str] = field(default_factory=dict)
    precisions: dict[str, list[Precision]] = field(default_factory=dict)  # by device
    error: str | None = None


def describe(name: str) -> Description:
    """Return the description of the backend called `name`; if it cannot start here, with its versions and `error`."""
    description = Description(name=name)
    try:
        backend = load(name)
        description = replace(description, versions=dict(backend.versions()))
        devices = dict(backend.devices())
        precisions = {device: sorted(backend.precisions(device)) for device in devices}
    except BackendError as error:
        return replace(description, error=str(error))
    return replace(description, devices=devices, precisions=precisions)


def load(name: str) -> Backend:
    """Return the backend called `name`. Raises `BackendError` with the list of installed backends."""
    points = tuple(entry_points(group=GROUP, name=name))
    if not points:
        installed = ", ".join(names()) or "none"
        if name in _IN_REPOSITORY:
            folder = f"backends/{name.removesuffix('-eager')}"
            raise BackendError(
                f"backend {name} is not installed",
                f"run `pip install -e {folder}` in mbbench's checkout, or choose another backend ({installed})",
            )
        raise BackendError(f"unknown backend: {name!r}", f"choose an installed backend ({installed})")
    target = points[0].value
    try:
        backend = points[0].load()()
    except Exception as error:  # a third party's module may fail in any way
        raise BackendError(
            f"backend {name} ({target}) cannot be loaded: {error}", "reinstall or remove its distribution"
        ) from error
    if not isinstance(backend, Backend):
        raise BackendError(f"backend {name} ({target}) is not an mbbench Backend", "report this to its author")
    return backend
