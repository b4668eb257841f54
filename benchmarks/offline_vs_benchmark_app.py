"""mbbench's offline throughput on OpenVINO, divided by that of benchmark_app with `-hint throughput`.

    .venv/bin/python benchmarks/offline_vs_benchmark_app.py

Target: at least 0.97. Both use the same ONNX file, every CPU and batches of one image, in separate processes that
alternate.
"""

from __future__ import annotations

import subprocess
import sys

from common import NARROW, WIDE, alternate, artifact, benchmark_app, images, row

from mbbench import registry
from mbbench.machine import allowed_cpus
from mbbench.measure.latency import no_garbage_collection
from mbbench.measure.requests import open_requests
from mbbench.measure.scenarios import run_offline
from mbbench.spec import ModelSpec

_SECONDS = 4
_ROUNDS = 9


def benchmark_app_rate(spec: ModelSpec) -> float:
    return float(benchmark_app(spec, _SECONDS, r"Throughput:\s+([0-9.]+) FPS", "-hint", "throughput"))


def mbbench_rate(spec: ModelSpec) -> float:
    """Measure in a new process, as benchmark_app does."""
    command = [sys.executable, __file__, "--child", str(spec.alpha), str(spec.resolution)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def child(alpha: float, resolution: int) -> None:
    spec = ModelSpec(alpha=alpha, resolution=resolution)
    threads = len(allowed_cpus())
    backend = registry.load("openvino")
    with (
        open_requests(backend, artifact(spec), "", threads=threads, streams=None) as requests,
        no_garbage_collection(),
    ):
        print(run_offline(requests, images(spec), seconds=_SECONDS).images_per_s)


def main() -> None:
    row("model", "mbbench, 1/s", "app, 1/s", "ratio")
    for spec in (NARROW, WIDE):
        figures = alternate(lambda s=spec: mbbench_rate(s), lambda s=spec: benchmark_app_rate(s), _ROUNDS)  # type: ignore[misc]
        row(spec.label, *figures)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(float(sys.argv[2]), int(sys.argv[3]))
    else:
        main()
