"""The measuring child process: `python -m mbbench.measure.child MODULE JOB OUT`.

MODULE is a module of `mbbench.measure.jobs`. It defines `Job` (the request), `Report` (the reply), `START` (the report
before any phase ran) and `measure(job, spare_cpus, save)`. The job is read from the file JOB. The report replaces the
file OUT after every phase, so that no measurement is lost however the process ends.
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
    """A frozen dataclass of plain data, with the current phase and the failure that ended it, if any."""

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
    """Return the job or report of type `kind` in `content`."""
    return msgspec.json.decode(content, type=kind, dec_hook=_decode_path)


def _decode_path(kind: type[Any], value: Any) -> Any:
    return kind(value)


def main(module_name: str, job_path: str, out_path: str) -> int:
    """Run the job; return 0, or the exit code of the failure that the report records."""
    module = import_module(module_name)
    job = decode(Path(job_path).read_bytes(), module.Job)
    latest = module.START

    def save(report: Any) -> None:
        nonlocal latest
        latest = report
        _replace_file(Path(out_path), msgspec.json.encode(report))

    spare_cpus = allowed_cpus() - set(job.cpus)
    _set_up_process(job.cpus)
    try:
        save(module.measure(job, spare_cpus, save))
    except MbbenchError as error:
        save(replace(latest, failure=Failure.from_error(error)))
        return error.exit_code
    return 0


def _replace_file(path: Path, content: bytes) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(content)
    temporary.replace(path)


def _set_up_process(cpus: tuple[int, ...]) -> None:
    """Pin this process to `cpus` and, on Linux, make the kernel kill it when its parent dies.

    An orphan would disturb the next measurement.
    """
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cpus)


if __name__ == "__main__":
    status = main(*sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # the report is written: tearing a runtime down takes PyTorch a second, and can crash
