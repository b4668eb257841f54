"""The measuring child process: `python -m mbbench.measure.child MODULE JOB OUT`.

MODULE is one of `mbbench.measure.jobs`. It defines `Job` (the request), `Report` (the answer), `START` (the report
before anything ran) and `measure(job, spare_cpus, save)`. The job is read from the file JOB; the report replaces OUT
after every phase, so that nothing measured is lost, however the process ends.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from mbbench.errors import MbbenchError
from mbbench.machine import allowed_cpus
from mbbench.result import Failure
from mbbench.spec import Settings

_T = TypeVar("_T")
_R_contra = TypeVar("_R_contra", contravariant=True)
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Job(Protocol):
    """A frozen dataclass of plain data and paths."""

    @property
    def settings(self) -> Settings: ...
    @property
    def cpus(self) -> tuple[int, ...]: ...


class Report(Protocol):
    """A frozen dataclass of plain data: the current phase, and the failure that ended it."""

    @property
    def phase(self) -> str: ...
    @property
    def failure(self) -> Failure | None: ...


class Save(Protocol[_R_contra]):
    """Store the report of the phases so far."""

    def __call__(self, report: _R_contra, /) -> None: ...


def encode(job: object) -> bytes:
    """Return the job as JSON; paths become strings."""
    return msgspec.json.encode(job, enc_hook=str)


def decode(content: bytes, kind: type[_T]) -> _T:
    """Return the job or report in `content`."""
    return msgspec.json.decode(content, type=kind, dec_hook=_path)


def _path(kind: type[Any], value: Any) -> Any:
    return kind(value)


def main(module_name: str, job_path: str, out_path: str) -> int:
    """Run the job; return 0, or the exit code of the failure that the report holds."""
    module = import_module(module_name)
    job = decode(Path(job_path).read_bytes(), module.Job)
    latest = module.START

    def save(report: Any) -> None:
        nonlocal latest
        latest = report
        _replace(Path(out_path), msgspec.json.encode(report))

    spare_cpus = allowed_cpus() - set(job.cpus)
    _pin(job.cpus)
    try:
        save(module.measure(job, spare_cpus, save))
    except MbbenchError as error:
        save(replace(latest, failure=Failure.of(error)))
        return error.exit_code
    return 0


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(content)
    temporary.replace(path)


def _pin(cpus: tuple[int, ...]) -> None:
    """Pin this process to `cpus`, and on Linux let it die with its parent.

    An orphan would disturb whatever is measured next.
    """
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cpus)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
