"""mbbench's ONNX Runtime latency over a bare loop around `InferenceSession.run`; target at most 1.01.

Both call the same session options on the same file in one process, in alternating blocks.
"""

from __future__ import annotations

import statistics
from time import perf_counter_ns

import onnxruntime
from common import NARROW, WIDE, alternate, artifact, images, median_ms, open_session, pin, row

from mbbench.spec import ModelSpec

_SECONDS = 1.0
_ROUNDS = 20


def compare(spec: ModelSpec) -> tuple[float, float, float]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    bare = onnxruntime.InferenceSession(artifact(spec, "onnx").path, options, providers=["CPUExecutionProvider"])
    inputs = images(spec)

    def loop() -> float:
        samples = []
        end = perf_counter_ns() + _SECONDS * 1e9
        while perf_counter_ns() < end:
            before = perf_counter_ns()
            bare.run(None, {"images": inputs})
            samples.append(perf_counter_ns() - before)
        return statistics.median(samples) / 1e6

    with open_session("onnxruntime", spec) as session:
        return alternate(lambda: median_ms(lambda: session.run(inputs), _SECONDS), loop, _ROUNDS)


if __name__ == "__main__":
    pin()
    row("model", "ours, ms", "bare, ms", "ratio")
    for spec in (NARROW, WIDE):
        row(spec.label, *compare(spec))
