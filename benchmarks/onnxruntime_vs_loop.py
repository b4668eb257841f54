"""Median latency of mbbench's ONNX Runtime backend, divided by a bare loop around `InferenceSession.run`.

    .venv/bin/python benchmarks/onnxruntime_vs_loop.py

Target: at most 1.01. Both use the same settings and file, in one process, and alternate. Every round opens new
sessions: the addresses of a session's buffers shift its latency by about 1 % for its lifetime.
"""

from __future__ import annotations

import statistics
from time import perf_counter_ns

import onnxruntime
from common import NARROW, WIDE, alternate, artifact, images, median_ms, open_session, pin, row

from mbbench.spec import ModelSpec

_SECONDS = 1.0
_ROUNDS = 20


def mbbench_ms(spec: ModelSpec) -> float:
    inputs = images(spec)
    with open_session("onnxruntime", spec) as session:
        return median_ms(lambda: session.run(inputs), _SECONDS)


def loop_ms(spec: ModelSpec) -> float:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(artifact(spec).path, options, providers=["CPUExecutionProvider"])
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
    row("model", "mbbench, ms", "loop, ms", "ratio")
    for spec in (NARROW, WIDE):
        row(spec.label, *alternate(lambda s=spec: mbbench_ms(s), lambda s=spec: loop_ms(s), _ROUNDS))  # type: ignore[misc]
