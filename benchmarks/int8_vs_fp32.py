"""INT8 over FP32: the ratio of median latencies on the same backend, and of sizes on disk, for 1.0 MobileNet-224.

Both sessions live in one process and are timed in alternating blocks. Speed does not depend on the weights, so they are
random and INT8 is calibrated on noise.
"""

from __future__ import annotations

from common import WIDE, alternate, artifact, images, median_ms, open_session, pin, prepared, row

from mbbench import registry
from mbbench.artifacts.export import Exported, export_quantized
from mbbench.backend import Session
from mbbench.spec import ModelSpec

_SECONDS = 1.0
_ROUNDS = 10


def quantized(backend: str, spec: ModelSpec) -> Exported:
    made, opened = prepared(spec), registry.load(backend)
    dialect = opened.dialects(next(iter(opened.devices())))["int8"]
    return export_quantized(lambda: made.write(dialect), made.graph.stem, opened.formats[0], dialect)


def open_int8(backend: str, spec: ModelSpec) -> Session:
    own = quantized(backend, spec).artifact(spec, 1, "int8")
    return registry.load(backend).open(own, "", threads=1, stage=lambda _: None)


if __name__ == "__main__":
    pin()
    row("backend", "int8, ms", "fp32, ms", "ratio", "size ratio")
    inputs = images(WIDE)
    for backend in ("openvino", "onnxruntime", "torch"):
        size = quantized(backend, WIDE).info.size_bytes
        fp32_size = artifact(WIDE, registry.load(backend).formats[0]).path.stat().st_size
        with open_int8(backend, WIDE) as int8, open_session(backend, WIDE) as fp32:
            run8, run32 = int8.run, fp32.run
            figures = alternate(
                lambda run=run8: median_ms(lambda: run(inputs), _SECONDS),  # type: ignore[misc]
                lambda run=run32: median_ms(lambda: run(inputs), _SECONDS),  # type: ignore[misc]
                _ROUNDS,
            )
        row(backend, *figures, size / fp32_size)
