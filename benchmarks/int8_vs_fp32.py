"""Median latency and size on disk of INT8, divided by those of FP32 on the same backend, for 1.0 MobileNet-224.

    .venv/bin/python benchmarks/int8_vs_fp32.py

Targets, on a CPU with VNNI: at most 0.36 for the latency, on OpenVINO and ONNX Runtime, and at most 0.27 for the size.
Both sessions are in one process and are timed in alternating blocks. Speed does not depend on the weights, so they are
random and INT8 is calibrated on noise.
"""

from __future__ import annotations

from common import WIDE, alternate, artifact, images, median_ms, open_session, pin, quantization, row

from mbbench import registry
from mbbench.artifacts.export import Exported, export_quantized
from mbbench.backend import Session
from mbbench.spec import ModelSpec

_SECONDS = 1.0
_ROUNDS = 10


def export_int8(backend_name: str, spec: ModelSpec) -> Exported:
    """Export `spec` in the INT8 dialect of the backend's default device."""
    quantized, backend = quantization(spec), registry.load(backend_name)
    dialect = backend.dialects(next(iter(backend.devices())))["int8"]
    return export_quantized(lambda: quantized.write(dialect), quantized.graph.stem, backend.formats[0], dialect)


def open_int8(backend_name: str, spec: ModelSpec) -> Session:
    """Open an INT8 session with one thread on the default device."""
    artifact = export_int8(backend_name, spec).artifact(spec, 1, "int8")
    return registry.load(backend_name).open(artifact, "", threads=1, stage=lambda _: None)


if __name__ == "__main__":
    pin()
    row("backend", "int8, ms", "fp32, ms", "ratio", "size ratio")
    inputs = images(WIDE)
    for backend in ("openvino", "onnxruntime", "torch"):
        int8_size = export_int8(backend, WIDE).info.size_bytes
        fp32_size = artifact(WIDE).path.stat().st_size
        with open_int8(backend, WIDE) as int8, open_session(backend, WIDE) as fp32:
            run_int8, run_fp32 = int8.run, fp32.run
            figures = alternate(
                lambda run=run_int8: median_ms(lambda: run(inputs), _SECONDS),  # type: ignore[misc]
                lambda run=run_fp32: median_ms(lambda: run(inputs), _SECONDS),  # type: ignore[misc]
                _ROUNDS,
            )
        row(backend, *figures, int8_size / fp32_size)
