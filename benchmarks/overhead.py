"""Seconds of `mbbench run` with a warm cache outside the warm-up, latency and throughput phases. Target: at most 3 s.

    .venv/bin/python benchmarks/overhead.py

The target excludes the accuracy phase, but the figure includes it, so it is an upper bound.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

from common import row

from mbbench import store

_MBBENCH = str(Path(sys.executable).with_name("mbbench"))
_RUNS = 5


def overhead(results: Path) -> tuple[float, float, float]:
    """Return the total, timed and remaining seconds of one run."""
    command = [_MBBENCH, "run", "--alpha", "0.5", "--res", "128", "--backend", "openvino", "--results", str(results)]
    before = perf_counter()
    subprocess.run(command, capture_output=True, check=True)
    total = perf_counter() - before
    *_, last = store.read(results)
    latency, throughput = last.measured.latency, last.measured.throughput
    assert latency is not None and throughput is not None
    timed = latency.warm_up.seconds + sum(latency.samples_ms) / 1e3 + throughput.seconds
    return total, timed, total - timed


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "results.jsonl")
        overhead(path)  # fills the cache
        runs = [overhead(path) for _ in range(_RUNS)]
    row("", "total, s", "timed, s", "other, s")
    row("mbbench run", *map(statistics.median, zip(*runs, strict=True)))
