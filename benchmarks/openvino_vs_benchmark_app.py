"""mbbench's OpenVINO latency over benchmark_app's: same ONNX file, thread and precision; target 0.97 to 1.03.

benchmark_app is OpenVINO's own tool. It runs in processes of its own, alternating with ours on the same CPU.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from common import NARROW, WIDE, alternate, artifact, images, median_ms, open_session, pin, row

from mbbench.spec import ModelSpec

_SECONDS = 4
_ROUNDS = 7
_MEDIAN = re.compile(r"Median:\s+([0-9.]+) (ms|us)")


def benchmark_app(spec: ModelSpec) -> float:
    side = spec.resolution
    command = [
        str(Path(sys.executable).with_name("benchmark_app")), "-m", str(artifact(spec, "onnx").path), "-d", "CPU",
        "-api", "sync", "-hint", "none", "-nthreads", "1", "-nstreams", "1", "-infer_precision", "f32", "-ip", "f32",
        "-shape", f"[1,3,{side},{side}]", "-t", str(_SECONDS),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    found = _MEDIAN.search(done.stdout)
    if found is None:
        sys.exit(f"benchmark_app gave no median:\n{done.stdout}{done.stderr}")
    return float(found[1]) / {"ms": 1, "us": 1000}[found[2]]


def ours(spec: ModelSpec) -> float:
    """In a process of its own too, so that both start alike."""
    command = [sys.executable, __file__, "--ours", str(spec.alpha), str(spec.resolution)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def measure_ours(alpha: float, resolution: int) -> None:
    spec = ModelSpec(alpha=alpha, resolution=resolution)
    inputs = images(spec)
    with open_session("openvino", spec) as session:
        print(median_ms(lambda: session.run(inputs), _SECONDS))


def main() -> None:
    row("model", "ours, ms", "native, ms", "ratio")
    for spec in (NARROW, WIDE):
        row(spec.label, *alternate(lambda s=spec: ours(s), lambda s=spec: benchmark_app(s), _ROUNDS))  # type: ignore[misc]


if __name__ == "__main__":
    pin()
    if sys.argv[1:2] == ["--ours"]:
        measure_ours(float(sys.argv[2]), int(sys.argv[3]))
    else:
        main()
