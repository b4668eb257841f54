"""Backends by name, found through the entry points of installed distributions."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points

from mbbench.backend import Backend
from mbbench.errors import BackendError
from mbbench.spec import Precision

GROUP = "mbbench.backends"
# In mbbench's own repository, under backends/.
_OURS = ("torch", "torch-eager", "onnxruntime", "openvino", "tensorrt", "litert", "executorch", "ncnn")


def names() -> tuple[str, ...]:
    """The installed backends, without importing any of them."""
    return tuple(sorted({point.name for point in entry_points(group=GROUP)}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What a backend says of itself; `error` is why it cannot start here, with the remedy."""

    name: str
    versions: dict[str, str] = field(default_factory=dict)
    devices: dict[str, str] = field(default_factory=dict)
    precisions: dict[str, list[Precision]] = field(default_factory=dict)  # by device
    error: str | None = None


def describe(name: str) -> Description:
    """Ask the backend called `name`; one that cannot start here still tells its versions."""
    found = Description(name=name)
    try:
        backend = load(name)
        found = replace(found, versions=dict(backend.versions()))
        devices = dict(backend.devices())
        precisions = {device: sorted(backend.precisions(device)) for device in devices}
    except BackendError as error:
        return replace(found, error=str(error))
    return replace(found, devices=devices, precisions=precisions)


def load(name: str) -> Backend:
    """The backend called `name`; raises `BackendError` with the list of those there are."""
    found = tuple(entry_points(group=GROUP, name=name))
    if not found:
        installed = f"installed are: {', '.join(names()) or 'none'}"
        if name in _OURS:
            folder = f"backends/{name.removesuffix('-eager')}"
            raise BackendError(
                f"backend {name} is not installed", f"run `pip install -e {folder}` in mbbench's checkout; {installed}"
            )
        raise BackendError(f"there is no backend {name!r}", installed)
    try:
        backend = found[0].load()()
    except Exception as error:  # a third party's module may fail in any way
        raise BackendError(
            f"backend {name} ({found[0].value}) cannot be loaded: {error}", "reinstall or remove its distribution"
        ) from error
    if not isinstance(backend, Backend):
        raise BackendError(f"backend {name} ({found[0].value}) is not an mbbench Backend", "report this to its author")
    return backend
