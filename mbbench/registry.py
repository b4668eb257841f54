"""Backends by name, found through the entry points of installed distributions."""

from __future__ import annotations

from importlib.metadata import entry_points

from mbbench.backend import Backend
from mbbench.errors import BackendError

GROUP = "mbbench.backends"
_OURS = ("torch", "torch-eager", "onnxruntime", "openvino", "tensorrt")  # in mbbench's own repository, under backends/


def names() -> tuple[str, ...]:
    """The installed backends, without importing any of them."""
    return tuple(sorted({point.name for point in entry_points(group=GROUP)}))


def load(name: str) -> Backend:
    """The backend called `name`; raises `BackendError` with the list of those there are."""
    found = tuple(entry_points(group=GROUP, name=name))
    if not found:
        installed = f"installed are: {', '.join(names()) or 'none'}"
        if name in _OURS:
            package = "mbbench-" + name.removesuffix("-eager")
            raise BackendError(f"backend {name} is not installed", f"run `pip install {package}`; {installed}")
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
