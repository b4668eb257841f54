"""The parent's side of a measurement: start the child, block until it exits, and interpret its exit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from mbbench.errors import EXIT_INTERRUPTED, BackendError, CellsFailedError, Interrupted, MbbenchError, RequirementError
from mbbench.measure import child
from mbbench.result import Failure

_R = TypeVar("_R", bound=child.Report)
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def run_in_child(job: child.Job, start: _R) -> _R:
    """Run the job in a fresh process and return its report: everything measured before the process ended.

    `job` belongs to a module of `mbbench.measure.jobs`, and `start` is that module's `START`, the report of a process
    that wrote none. Blocks in the kernel on the child's pipes: the parent neither polls nor draws while the child
    measures.
    """
    with tempfile.TemporaryDirectory(prefix="mbbench-") as folder:
        job_path, out_path = Path(folder, "job.json"), Path(folder, "out.json")
        job_path.write_bytes(child.encode(job))
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", child.__name__, type(job).__module__, str(job_path), str(out_path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(job.settings.threads))},
        )

        def read_report(failure: Failure | None = None) -> _R:
            report = child.decode(out_path.read_bytes(), type(start)) if out_path.exists() else start
            return report if failure is None else replace(report, failure=failure)  # type: ignore[type-var]

        limit_s = job.settings.timeout_s + (job.settings.sustain_s or 0)
        timed_out = False
        try:
            output, _ = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            timed_out = True
            process.kill()
            output, _ = process.communicate()
        except KeyboardInterrupt as error:
            process.kill()
            process.communicate()
            cause = f"interrupted during {read_report().phase}"
            exit_code = error.exit_code if isinstance(error, Interrupted) else EXIT_INTERRUPTED
            return read_report(Failure(cause=cause, remedy="run it again", exit_code=exit_code))
        report = read_report()
        if timed_out:
            cause = f"the measurement took longer than {limit_s:g} s (phase {report.phase})"
            remedy = "raise timeout_s in the profile"
            return read_report(Failure(cause=cause, remedy=remedy, exit_code=CellsFailedError.exit_code))
        if report.failure is not None or process.returncode == 0:
            return report
        return read_report(exit_failure(process.returncode, report.phase, output.decode(errors="replace")))


def exit_failure(code: int, phase: str, output: str) -> Failure:
    """Return the failure of a child that ended without reporting one: by a signal, or by an unexpected error.

    `code` is the exit status, or the negative number of the signal; `output` is what the child printed.
    """
    if code == -signal.SIGKILL:
        return Failure(
            cause=f"the measuring process was killed by the kernel or another process (SIGKILL, phase {phase})",
            remedy="free memory (it most likely ran out), lower bulk_batch, or choose a smaller model",
            exit_code=CellsFailedError.exit_code,
        )
    if code < 0:
        return Failure(
            cause=f"the measuring process crashed with {signal.Signals(-code).name} in phase {phase}",
            remedy="try another version of the runtime, or fewer threads",
            exit_code=CellsFailedError.exit_code,
        )
    last = next((line for line in reversed(output.splitlines()) if line.strip()), f"exit status {code}")
    return Failure(
        cause=f"the measuring process failed in phase {phase}: {last.strip()}",
        remedy="report this bug of mbbench or of the backend",
        exit_code=MbbenchError.exit_code,
    )


def raise_failure(failure: Failure | None) -> None:
    """Raise the error that `failure` records, if any: `MbbenchError` or `Interrupted`."""
    if failure is None:
        return
    if failure.is_interruption:
        raise Interrupted(failure.exit_code)
    kinds: dict[int, type[MbbenchError]] = {kind.exit_code: kind for kind in (RequirementError, BackendError)}
    raise kinds.get(failure.exit_code, CellsFailedError)(failure.cause, failure.remedy)
