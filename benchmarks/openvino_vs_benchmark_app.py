"""mbbench's OpenVINO latency over benchmark_app's: same ONNX file, thread and precision; target 0.97 to 1.03.

benchmark_app is OpenVINO's own tool. It runs in processes of its own, alternating with ours on the same CPU.
"""

from __future__ import annotations

import subprocess
import sys

from common import NARROW, WIDE, alternate, benchmark_app, images, median_ms, open_session, pin, row

from mbbench.spec import ModelSpec

_SECONDS = 4
_ROUNDS = 7


def native(spec: ModelSpec) -> float:
    """Milliseconds."""
    options = ("-api", "sync", "-hint", "none", "-nthreads", "1", "-nstreams", "1")
    value, unit = benchmark_app(spec, _SECONDS, r"Median:\s+([0-9.]+ (?:ms|us))", *options).split()
    return float(value) / {"ms": 1, "us": 1000}[unit]


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
        row(spec.label, *alternate(lambda s=spec: ours(s), lambda s=spec: native(s), _ROUNDS))  # type: ignore[misc]


if __name__ == "__main__":
    pin()
    if sys.argv[1:2] == ["--ours"]:
        measure_ours(float(sys.argv[2]), int(sys.argv[3]))
    else:
        main()
