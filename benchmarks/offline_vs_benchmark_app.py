"""mbbench's offline throughput on OpenVINO over benchmark_app's `-hint throughput`: same ONNX file; at least 0.97.

Both take every CPU and batches of one, in processes of their own that alternate.
"""

from __future__ import annotations

import subprocess
import sys

from common import NARROW, WIDE, alternate, artifact, benchmark_app, images, row

from mbbench import registry
from mbbench.machine import allowed_cpus
from mbbench.measure.latency import no_garbage_collection
from mbbench.measure.requests import open_requests
from mbbench.measure.scenarios import offline
from mbbench.spec import ModelSpec

_SECONDS = 4
_ROUNDS = 9


def native(spec: ModelSpec) -> float:
    return float(benchmark_app(spec, _SECONDS, r"Throughput:\s+([0-9.]+) FPS", "-hint", "throughput"))


def ours(spec: ModelSpec) -> float:
    command = [sys.executable, __file__, "--ours", str(spec.alpha), str(spec.resolution)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def measure_ours(alpha: float, resolution: int) -> None:
    spec = ModelSpec(alpha=alpha, resolution=resolution)
    threads = len(allowed_cpus())
    backend = registry.load("openvino")
    with (
        open_requests(backend, artifact(spec, "onnx"), "", threads=threads, streams=None) as requests,
        no_garbage_collection(),
    ):
        print(offline(requests, images(spec), seconds=_SECONDS).images_per_s)


def main() -> None:
    row("model", "ours, 1/s", "native, 1/s", "ratio")
    for spec in (NARROW, WIDE):
        row(spec.label, *alternate(lambda s=spec: ours(s), lambda s=spec: native(s), _ROUNDS))  # type: ignore[misc]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--ours"]:
        measure_ours(float(sys.argv[2]), int(sys.argv[3]))
    else:
        main()
