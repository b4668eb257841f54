"""How long `mbbench choose` takes over 10,000 stored results: `benchmarks/scale.py RESULTS.jsonl`; at most 3 s.

They are those of RESULTS over and over, with the first 662 of their samples, each time of another width.
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


def many(source: Path) -> list[Result]:
    found = []
    for number, result in enumerate(islice(cycle(subjects(store.read(source))), _RESULTS)):
        latency, model = result.measured.latency, replace(result.cell.model, alpha=1 + number / _RESULTS)
        if latency is not None:
            latency = replace(latency, samples_ms=latency.samples_ms[: samples_needed(0.99)])
        found.append(
            replace(
                result,
                measured=replace(result.measured, latency=latency),
                cell=replace(result.cell, model=model),
            )
        )
    return found


def main(source: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "results.jsonl")
        path.write_bytes(b"\n".join(map(msgspec.json.encode, many(source))) + b"\n")
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
