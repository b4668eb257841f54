"""mbbench's ONNX Runtime latency over a bare loop around `InferenceSession.run`; target at most 1.01.

Both take the same settings and file in one process, in alternation. Every round opens both sessions anew: where a
session's buffers happen to lie moves its latency by a percent, for as long as it lives.
"""

from __future__ import annotations

import statistics
from time import perf_counter_ns

import onnxruntime
from common import NARROW, WIDE, alternate, artifact, images, median_ms, open_session, pin, row

from mbbench.spec import ModelSpec

_SECONDS = 1.0
_ROUNDS = 20


def ours(spec: ModelSpec) -> float:
    inputs = images(spec)
    with open_session("onnxruntime", spec) as session:
        return median_ms(lambda: session.run(inputs), _SECONDS)


def bare(spec: ModelSpec) -> float:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(artifact(spec, "onnx").path, options, providers=["CPUExecutionProvider"])
    inputs = images(spec)
    for _ in range(50):
        session.run(None, {"images": inputs})
    samples = []
    end = perf_counter_ns() + _SECONDS * 1e9
    while perf_counter_ns() < end:
        before = perf_counter_ns()
        session.run(None, {"images": inputs})
        samples.append(perf_counter_ns() - before)
    return statistics.median(samples) / 1e6


if __name__ == "__main__":
    pin()
    row("model", "ours, ms", "bare, ms", "ratio")
    for spec in (NARROW, WIDE):
        row(spec.label, *alternate(lambda s=spec: ours(s), lambda s=spec: bare(s), _ROUNDS))  # type: ignore[misc]
