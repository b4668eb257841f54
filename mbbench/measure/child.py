"""What measuring child processes share: their job comes as a file, their report leaves as one, and they are pinned."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from mbbench.result import Failure
from mbbench.spec import Settings

_T = TypeVar("_T")
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


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


def settle(cpus: tuple[int, ...]) -> None:
    """Pin this process, and where the kernel can (Linux) let it die with its parent.

    Nobody waits for an orphan, and it would disturb what is measured next.
    """
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cpus)
