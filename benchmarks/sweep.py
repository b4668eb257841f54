"""Share of a sweep's time outside the measuring processes, for 4 widths by 4 resolutions on ONNX Runtime.

    .venv/bin/python benchmarks/sweep.py

Targets: at most 25 % of the time is outside the child processes, and a repetition of the sweep measures nothing.
Weights are random, and everything that is made once (exports, images, ceilings) is in the cache beforehand.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from time import perf_counter

from common import row

from mbbench import plan, sweep
from mbbench.events import Event, Finished, Measuring
from mbbench.profile import Profile
from mbbench.spec import RunSpec, Settings

_QUICK = Settings(min_samples=20, min_s=0.01, max_s=1.0, warmup_max_s=0.1, throughput_s=0.1)


def timed(spec: RunSpec, results: Path) -> tuple[float, float, int]:
    """Return the total seconds, the seconds in measuring processes, and the number of cells measured."""
    spans: list[float] = []
    measuring_start = 0.0

    def notify(event: Event) -> None:
        nonlocal measuring_start
        if isinstance(event, Measuring):
            measuring_start = perf_counter()
        elif isinstance(event, Finished):
            spans.append(perf_counter() - measuring_start)

    start = perf_counter()
    for _ in sweep.sweep(spec, results, notify):
        pass
    return perf_counter() - start, sum(spans), len(spans)


def main() -> None:
    profile = Profile(
        alpha=(0.25, 0.5, 0.75, 1.0), res=(128, 160, 192, 224), backend=("onnxruntime",), weights="random"
    )  # fmt: skip
    spec = plan.group_by_artifact(plan.plan(profile))
    with tempfile.TemporaryDirectory() as folder:
        timed(replace(spec, settings=_QUICK), Path(folder, "warm.jsonl"))
        results = Path(folder, "results.jsonl")
        row("4 x 4 on onnxruntime", "total, s", "measuring, s", "outside", "cells")
        for name in ("first", "repeated"):
            total, measuring, cells = timed(spec, results)
            row(name, total, measuring, f"{1 - measuring / total:.1%}", str(cells))


if __name__ == "__main__":
    main()
