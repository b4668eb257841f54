"""Installed backends by name, from the entry points of their distributions."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from pathlib import Path

from mbbench.backend import Backend
from mbbench.errors import BackendError, did_you_mean
from mbbench.spec import Precision

GROUP = "mbbench.backends"
_CHECKOUT = Path(__file__).parent.parent
# The backends in mbbench's repository, under backends/.
_IN_REPOSITORY = ("torch", "torch-eager", "onnxruntime", "openvino", "tensorrt", "litert", "executorch", "ncnn")
# What users call a backend: the format that it opens, or a short form.
_NICKNAMES = {
    "onnx": "onnxruntime",
    "ort": "onnxruntime",
    "ov": "openvino",
    "pytorch": "torch",
    "pt": "torch",
    "engine": "tensorrt",
    "trt": "tensorrt",
    "tflite": "litert",
    "pte": "executorch",
}
_MAX_ERROR_LENGTH = 300  # of a third party's message, which may be many lines


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


@dataclass(frozen=True, slots=True)
class Probe:
    """A backend that can start here, with its versions and devices."""

    backend: Backend
    versions: dict[str, str]
    devices: dict[str, str]


def probe(name: str) -> Probe:
    """Return the backend called `name` with its versions and devices.

    Raises `BackendError` if it is not installed, cannot start here, or fails in any other way.
    """
    backend = load(name)
    with guard(name, "reading its versions"):
        versions = dict(backend.versions())
    with guard(name, "listing its devices"):
        devices = dict(backend.devices())
    return Probe(backend, versions, devices)


@contextmanager
def guard(name: str, action: str) -> Iterator[None]:
    """Turn any exception of the backend called `name` into a `BackendError`: a third party's code may fail in any way.

    `action` completes the sentence "backend NAME failed while ...".
    """
    try:
        yield
    except BackendError:
        raise
    except Exception as error:
        raise BackendError(
            f"backend {name} failed while {action}: {type(error).__name__}: {_one_line(error)}",
            "reinstall its runtime, or report this to its author",
        ) from error


def describe(name: str) -> Description:
    """Return the description of the backend called `name`. If it cannot start here, `error` says why."""
    description = Description(name=name)
    try:
        backend = load(name)
        with guard(name, "reading its versions"):
            description = replace(description, versions=dict(backend.versions()))
        with guard(name, "listing its devices"):
            devices = dict(backend.devices())
        with guard(name, "listing its precisions"):
            precisions = {device: sorted(backend.precisions(device)) for device in devices}
    except BackendError as error:
        return replace(description, error=str(error))
    return replace(description, devices=devices, precisions=precisions)


def install_command(distribution: str) -> str:
    """Return the command that installs a backend of the repository: from the checkout, if mbbench runs from one."""
    if (_CHECKOUT / "backends" / distribution / "pyproject.toml").is_file():
        return f"`pip install -e backends/{distribution}` in mbbench's checkout"
    return f"`pip install 'mbbench[{distribution}]'`"


def require_known(name: str) -> None:
    """Raise `BackendError` if no backend has this name, neither an installed one nor one of the repository."""
    if name not in {*names(), *_IN_REPOSITORY}:
        installed = ", ".join(names()) or "none"
        hint = did_you_mean(name, {*names(), *_IN_REPOSITORY}, _NICKNAMES)
        raise BackendError(f"unknown backend: {name!r}", f"{hint}choose an installed backend ({installed})")


def load(name: str) -> Backend:
    """Return the backend called `name`. Raises `BackendError` with the list of installed backends."""
    require_known(name)
    points = tuple(entry_points(group=GROUP, name=name))
    if not points:
        installed = ", ".join(names()) or "none"
        command = install_command(name.removesuffix("-eager"))
        raise BackendError(
            f"backend {name} is not installed", f"run {command}, or choose another backend ({installed})"
        )
    target = points[0].value
    try:
        backend = points[0].load()()
    except Exception as error:  # a third party's module may fail in any way
        raise BackendError(
            f"backend {name} ({target}) cannot be loaded: {_one_line(error)}", "reinstall or remove its distribution"
        ) from error
    if not isinstance(backend, Backend):
        raise BackendError(f"backend {name} ({target}) is not an mbbench Backend", "report this to its author")
    return backend


def _one_line(error: Exception) -> str:
    return textwrap.shorten(str(error), _MAX_ERROR_LENGTH)
