"""The parent's side of a measurement: start the child, block until it ends, and understand how it ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from mbbench.errors import EXIT_INTERRUPTED, BackendError, CellsFailedError, MbbenchError, RequirementError
from mbbench.measure import child
from mbbench.result import Failure

_R = TypeVar("_R", bound=child.Report)
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def run_in_child(job: child.Job, start: _R) -> _R:
    """Run the job in a fresh process and return its report, with whatever it measured before it ended or was ended.

    `job` belongs to a module of `mbbench.measure.jobs`, and `start` is that module's `START`: the report of a process
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

        def report(failure: Failure | None = None) -> _R:
            found = child.decode(out_path.read_bytes(), type(start)) if out_path.exists() else start
            return found if failure is None else replace(found, failure=failure)  # type: ignore[type-var]

        timed_out = False
        try:
            output, _ = process.communicate(timeout=job.settings.timeout_s + (job.settings.sustain_s or 0))
        except subprocess.TimeoutExpired:
            timed_out = True
            process.kill()
            output, _ = process.communicate()
        except KeyboardInterrupt:
            process.kill()
            process.communicate()
            cause = f"interrupted during {report().phase}"
            return report(Failure(cause=cause, remedy="run it again", exit_code=130))
        found = report()
        if timed_out:
            limit = f"took longer than {job.settings.timeout_s:g} s (phase {found.phase})"
            return report(Failure(cause=limit, remedy="raise timeout_s in the profile", exit_code=7))
        if found.failure is not None or process.returncode == 0:
            return found
        return report(explain_exit(process.returncode, found.phase, output.decode(errors="replace")))


def explain_exit(code: int, phase: str, output: str) -> Failure:
    """Why a child died that could not say so itself: a signal, or an error nobody expected."""
    if code == -signal.SIGKILL:
        return Failure(
            cause=f"the measuring process was killed by the kernel or another process (SIGKILL, phase {phase})",
            remedy="most likely memory ran out: free some, lower bulk_batch, or choose a smaller model",
            exit_code=7,
        )
    if code < 0:
        return Failure(
            cause=f"the measuring process died of {signal.Signals(-code).name} in phase {phase}",
            remedy="the runtime crashed: try another version of it, or fewer threads",
            exit_code=7,
        )
    last = next((line for line in reversed(output.splitlines()) if line.strip()), f"exit status {code}")
    return Failure(
        cause=f"the measuring process failed in phase {phase}: {last.strip()}",
        remedy="this is a fault in mbbench or the backend: please report it",
        exit_code=1,
    )


def require(failure: Failure | None) -> None:
    """Raise what a failure amounts to."""
    if failure is None:
        return
    if failure.exit_code == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
    kinds: dict[int, type[MbbenchError]] = {kind.exit_code: kind for kind in (RequirementError, BackendError)}
    raise kinds.get(failure.exit_code, CellsFailedError)(failure.cause, failure.remedy)
