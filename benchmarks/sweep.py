"""How much of a sweep is not measuring: 4 widths by 4 resolutions of MobileNetV1 on ONNX Runtime, with warm caches.

    benchmarks/sweep.py

Weights are random and everything that is made once (exports, images, ceilings) is made before. Measuring is what the
child processes take from their start to their end. Targets: at most 25 % of the whole is outside measuring, and the
same sweep once more measures nothing.
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
    """(seconds in all, seconds of them measuring, cells measured)."""
    spans: list[float] = []
    began = 0.0

    def notify(event: Event) -> None:
        nonlocal began
        if isinstance(event, Measuring):
            began = perf_counter()
        elif isinstance(event, Finished):
            spans.append(perf_counter() - began)

    start = perf_counter()
    for _ in sweep.sweep(spec, results, notify):
        pass
    return perf_counter() - start, sum(spans), len(spans)


def main() -> None:
    profile = Profile(
        alpha=(0.25, 0.5, 0.75, 1.0), res=(128, 160, 192, 224), backend=("onnxruntime",), weights="random"
    )  # fmt: skip
    spec = plan.grouped(plan.plan(profile))
    with tempfile.TemporaryDirectory() as folder:
        timed(replace(spec, settings=_QUICK), Path(folder, "warm.jsonl"))
        results = Path(folder, "results.jsonl")
        row("4 x 4 on onnxruntime", "all, s", "measuring, s", "outside", "measured")
        for name in ("first", "once more"):
            whole, measuring, cells = timed(spec, results)
            row(name, whole, measuring, f"{1 - measuring / whole:.1%}", str(cells))


if __name__ == "__main__":
    main()
