"""mbbench's offline throughput on OpenVINO over benchmark_app's `-hint throughput`: same ONNX file; at least 0.97.

Both take every CPU and batches of one, in processes of their own that alternate.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from common import NARROW, WIDE, alternate, artifact, images, row

from mbbench import registry
from mbbench.machine import allowed_cpus
from mbbench.measure.latency import no_garbage_collection
from mbbench.measure.requests import open_requests
from mbbench.measure.scenarios import offline
from mbbench.spec import ModelSpec

_SECONDS = 4
_ROUNDS = 9
_RATE = re.compile(r"Throughput:\s+([0-9.]+) FPS")


def benchmark_app(spec: ModelSpec) -> float:
    side = spec.resolution
    command = [
        str(Path(sys.executable).with_name("benchmark_app")), "-m", str(artifact(spec, "onnx").path), "-d", "CPU",
        "-hint", "throughput", "-infer_precision", "f32", "-ip", "f32", "-shape", f"[1,3,{side},{side}]",
        "-t", str(_SECONDS),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    found = _RATE.search(done.stdout)
    if found is None:
        sys.exit(f"benchmark_app gave no throughput:\n{done.stdout}{done.stderr}")
    return float(found[1])


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
        row(spec.label, *alternate(lambda s=spec: ours(s), lambda s=spec: benchmark_app(s), _ROUNDS))  # type: ignore[misc]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--ours"]:
        measure_ours(float(sys.argv[2]), int(sys.argv[3]))
    else:
        main()
