"""The parent's side of a measurement: start the child, block until it ends, and understand how it ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import msgspec

from mbbench.measure.worker import Job, Report
from mbbench.result import Failure, Measured

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def measure_in_child(job: Job) -> Report:
    """Measure `job` in a fresh process. However that process ends, what it had measured comes back.

    Blocks in the kernel on the child's pipes: no polling and no drawing while the child holds the clock.
    """
    with tempfile.TemporaryDirectory(prefix="mbbench-") as folder:
        job_path, out_path = Path(folder, "job.json"), Path(folder, "out.json")
        job_path.write_bytes(job.encode())
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "mbbench.measure.worker", str(job_path), str(out_path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(job.settings.threads))},
        )
        timed_out = False
        try:
            output, _ = process.communicate(timeout=job.settings.timeout_s)
        except subprocess.TimeoutExpired:
            timed_out = True
            process.kill()
            output, _ = process.communicate()
        except KeyboardInterrupt:
            process.kill()
            process.communicate()
            report = _read(out_path)
            interrupted = Failure(cause=f"interrupted during {report.phase}", remedy="run it again", exit_code=130)
            return _failed(report, interrupted)
        report = _read(out_path)
        if timed_out:
            limit = f"took longer than {job.settings.timeout_s:g} s (phase {report.phase})"
            return _failed(report, Failure(cause=limit, remedy="raise timeout_s in the profile", exit_code=7))
        if report.failure is not None or process.returncode == 0:
            return report
        return _failed(report, explain_exit(process.returncode, report.phase, output.decode(errors="replace")))


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


def _failed(report: Report, failure: Failure) -> Report:
    return replace(report, failure=failure)


def _read(path: Path) -> Report:
    if not path.exists():
        return Report(phase="start", measured=Measured(), reasons={})
    return msgspec.json.decode(path.read_bytes(), type=Report)
