"""Median latency of mbbench's OpenVINO backend, divided by that of OpenVINO's benchmark_app. Target: 0.97 to 1.03.

    .venv/bin/python benchmarks/openvino_vs_benchmark_app.py

Both use the same ONNX file and precision and one thread, in separate processes that alternate on the same CPU.
"""

from __future__ import annotations

import subprocess
import sys

from common import NARROW, WIDE, alternate, benchmark_app, images, median_ms, open_session, pin, row

from mbbench.spec import ModelSpec

_SECONDS = 4
_ROUNDS = 7


def benchmark_app_ms(spec: ModelSpec) -> float:
    options = ("-api", "sync", "-hint", "none", "-nthreads", "1", "-nstreams", "1")
    value, unit = benchmark_app(spec, _SECONDS, r"Median:\s+([0-9.]+ (?:ms|us))", *options).split()
    return float(value) / {"ms": 1, "us": 1000}[unit]


def mbbench_ms(spec: ModelSpec) -> float:
    """Measure in a new process, as benchmark_app does."""
    command = [sys.executable, __file__, "--child", str(spec.alpha), str(spec.resolution)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def child(alpha: float, resolution: int) -> None:
    spec = ModelSpec(alpha=alpha, resolution=resolution)
    inputs = images(spec)
    with open_session("openvino", spec) as session:
        print(median_ms(lambda: session.run(inputs), _SECONDS))


def main() -> None:
    row("model", "mbbench, ms", "app, ms", "ratio")
    for spec in (NARROW, WIDE):
        figures = alternate(lambda s=spec: mbbench_ms(s), lambda s=spec: benchmark_app_ms(s), _ROUNDS)  # type: ignore[misc]
        row(spec.label, *figures)


if __name__ == "__main__":
    pin()
    if sys.argv[1:2] == ["--child"]:
        child(float(sys.argv[2]), int(sys.argv[3]))
    else:
        main()
