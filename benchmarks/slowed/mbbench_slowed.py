"""OpenVINO with each call slowed by the share `MBBENCH_SLOWDOWN`, except for files marked as the baseline."""

import os
from collections.abc import Callable
from time import perf_counter_ns
from typing import Any

import onnx
from mbbench_openvino import OpenVinoBackend

from mbbench.backend import Artifact, Session, Stage

MARK = "baseline"  # the `doc_string` of a file that is not slowed


class _Slowed(Session):
    def __init__(self, inner: Session, share: float) -> None:
        self._run, self._close, self._share = inner.run, inner.close, share
        self.facts = inner.facts

    def run(self, images: Any) -> Any:
        start = perf_counter_ns()
        logits = self._run(images)
        now = perf_counter_ns()
        until = now + (now - start) * self._share
        while perf_counter_ns() < until:
            pass
        return logits

    def close(self) -> None:
        self._close()


class SlowedBackend(OpenVinoBackend):
    def open(self, artifact: Artifact, device: str, *, threads: int, stage: Callable[[Stage], None]) -> Session:
        is_baseline = onnx.load(artifact.path).doc_string == MARK
        share = 0.0 if is_baseline else float(os.environ.get("MBBENCH_SLOWDOWN", "0"))
        return _Slowed(super().open(artifact, device, threads=threads, stage=stage), share)
