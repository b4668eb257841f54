"""ONNX Runtime with faults: what a broken runtime, driver or machine does to a measuring process."""

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from mbbench_onnxruntime import OnnxRuntimeBackend

from mbbench.backend import Artifact, LayerProfile, NodeTime, Session, Stage

_CALLS_BEFORE_THE_FAULT = 60  # past parity and the shortest warm-up, within timing


class _Faulty(Session):
    def __init__(self, inner: Session, fault: Callable[[Any, int], Any]) -> None:
        self._inner, self._fault, self._calls = inner, fault, 0
        self.facts = inner.facts

    def run(self, images: Any) -> Any:
        self._calls += 1
        return self._fault(self._inner.run(images), self._calls)


class _Backend(OnnxRuntimeBackend):
    def fault(self, logits: Any, calls: int) -> Any:
        raise NotImplementedError

    def open(self, artifact: Artifact, device: str, *, threads: int, stage: Callable[[Stage], None]) -> Session:
        return _Faulty(super().open(artifact, device, threads=threads, stage=stage), self.fault)


class NotFinite(_Backend):
    def fault(self, logits: Any, calls: int) -> Any:
        return logits * np.float32("nan")


class Constant(_Backend):
    def fault(self, logits: Any, calls: int) -> Any:
        return np.zeros_like(logits)


class Killed(_Backend):
    """As the kernel does when memory runs out, once latency has been measured."""

    def fault(self, logits: Any, calls: int) -> Any:
        if len(logits) > 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return logits


class Crashing(_Backend):
    def fault(self, logits: Any, calls: int) -> Any:
        if calls > _CALLS_BEFORE_THE_FAULT:
            os.kill(os.getpid(), signal.SIGSEGV)
        return logits


class Raising(_Backend):
    def fault(self, logits: Any, calls: int) -> Any:
        if calls > _CALLS_BEFORE_THE_FAULT:
            raise RuntimeError("the runtime lost its mind")
        return logits


class Slow(_Backend):
    def fault(self, logits: Any, calls: int) -> Any:
        if len(logits) > 1:
            time.sleep(60)
        return logits


class Telling(_Backend):
    """No fault: its facts tell the environment it was opened in."""

    def open(self, artifact: Artifact, device: str, *, threads: int, stage: Callable[[Stage], None]) -> Session:
        session = OnnxRuntimeBackend.open(self, artifact, device, threads=threads, stage=stage)
        session.facts = {name: os.environ[name] for name in ("OMP_NUM_THREADS", "MBBENCH_CACHE")}
        return session


class _Unprofiled(_Faulty, LayerProfile):
    def profile(self, images: Any, runs: int) -> tuple[NodeTime, ...]:
        raise RuntimeError("no counters here")


class Unprofiled(_Backend):
    """Measures well, then cannot tell how long its nodes take."""

    def open(self, artifact: Artifact, device: str, *, threads: int, stage: Callable[[Stage], None]) -> Session:
        session = OnnxRuntimeBackend.open(self, artifact, device, threads=threads, stage=stage)
        return _Unprofiled(session, lambda logits, calls: logits)


class NotABackend:
    pass
