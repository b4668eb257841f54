"""What measuring child processes share: their job comes as a file, their report leaves as one, and they are pinned."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from mbbench.result import Failure
from mbbench.spec import Settings

_T = TypeVar("_T")


class Job(Protocol):
    """A frozen dataclass of plain data and paths."""

    @property
    def settings(self) -> Settings: ...


class Report(Protocol):
    """A frozen dataclass of plain data: the phase under way, and the failure that ended it."""

    @property
    def phase(self) -> str: ...
    @property
    def failure(self) -> Failure | None: ...


def encode(job: object) -> bytes:
    return msgspec.json.encode(job, enc_hook=str)  # paths


def decode(content: bytes, kind: type[_T]) -> _T:
    return msgspec.json.decode(content, type=kind, dec_hook=_path)


def _path(kind: type[Any], value: Any) -> Any:
    return kind(value)


def save(report: object, out: Path) -> None:
    """Replace `out` by the report, whole."""
    temporary = out.with_suffix(".tmp")
    temporary.write_bytes(msgspec.json.encode(report))
    temporary.replace(out)


def pin(cpus: tuple[int, ...]) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cpus)
