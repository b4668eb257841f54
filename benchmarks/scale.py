"""Seconds that `mbbench choose` takes over 10,000 stored results. Target: at most 3 s.

    .venv/bin/python benchmarks/scale.py RESULTS.jsonl

The results repeat those of RESULTS with different widths and the first 662 samples each.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from time import perf_counter

import msgspec
from common import row

from mbbench import store
from mbbench.report.selection import subjects
from mbbench.result import Result
from mbbench.stats import samples_needed

_RESULTS = 10_000
_ROUNDS = 5
_LIMITS = ("--max-p99", "10ms", "--min-top1", "60", "--max-size", "5MB")


def repeat(source: Path) -> list[Result]:
    """Return 10,000 results that repeat those in `source` with different widths."""
    results = []
    for number, result in enumerate(islice(cycle(subjects(store.read(source))), _RESULTS)):
        latency, model = result.measured.latency, replace(result.cell.model, alpha=1 + number / _RESULTS)
        if latency is not None:
            latency = replace(latency, samples_ms=latency.samples_ms[: samples_needed(0.99)])
        results.append(
            replace(
                result,
                measured=replace(result.measured, latency=latency),
                cell=replace(result.cell, model=model),
            )
        )
    return results


def main(source: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "results.jsonl")
        path.write_bytes(b"\n".join(map(msgspec.json.encode, repeat(source))) + b"\n")
        command = [sys.executable, "-m", "mbbench", "choose", str(path), *_LIMITS]
        times = []
        for _ in range(_ROUNDS):
            start = perf_counter()
            subprocess.run(command, capture_output=True, check=True, cwd=folder, env=os.environ)
            times.append(perf_counter() - start)
        row("results", "MB", "median, s", "slowest, s")
        row(str(_RESULTS), path.stat().st_size / 1e6, median(times), max(times))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
