"""Seconds that `mbbench --help` takes. Target: at most 0.25 s.

    .venv/bin/python benchmarks/startup.py

The second column is a Python process that does nothing.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from time import perf_counter

from common import alternate, row

_ROUNDS = 20


def seconds(*command: str) -> float:
    before = perf_counter()
    subprocess.run(command, capture_output=True, check=True)
    return perf_counter() - before


if __name__ == "__main__":
    mbbench = str(Path(sys.executable).with_name("mbbench"))
    row("", "--help, s", "python, s", "ratio")
    row("mbbench", *alternate(lambda: seconds(mbbench, "--help"), lambda: seconds(sys.executable, "-c", ""), _ROUNDS))
