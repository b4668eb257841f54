"""ONNX Runtime with the faults of a broken runtime, driver or machine."""

import atexit
import os
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from mbbench_onnxruntime import OnnxRuntimeBackend

from mbbench.backend import Artifact, Converter, Dialect, Format, LayerProfile, NodeTime, Session, Stage
from mbbench.spec import Precision

_CALLS_BEFORE_FAULT = 60  # more than the parity check and the shortest warm-up: the fault occurs while timing


class _FaultySession(Session):
    def __init__(self, inner: Session, fault: Callable[[Any, int], Any]) -> None:
        self._inner, self._fault, self._calls = inner, fault, 0
        self.facts = inner.facts

    def run(self, images: Any) -> Any:
        self._calls += 1
        return self._fault(self._inner.run(images), self._calls)


class _FaultyBackend(OnnxRuntimeBackend):
    def fault(self, logits: Any, calls: int) -> Any:
        raise NotImplementedError

    def open(self, artifact: Artifact, device: str, *, threads: int, stage: Callable[[Stage], None]) -> Session:
        return _FaultySession(super().open(artifact, device, threads=threads, stage=stage), self.fault)


class NotFinite(_FaultyBackend):
    def fault(self, logits: Any, calls: int) -> Any:
        return logits * np.float32("nan")


class Constant(_FaultyBackend):
    def fault(self, logits: Any, calls: int) -> Any:
        return np.zeros_like(logits)


class RepeatsTheFirst(_FaultyBackend):
    """Gives all images of a batch the logits of the first."""

    def fault(self, logits: Any, calls: int) -> Any:
        return np.repeat(logits[:1], len(logits), axis=0)


class Killed(_FaultyBackend):
    """Killed after the latency phase, as by the kernel when memory runs out."""

    def fault(self, logits: Any, calls: int) -> Any:
        if len(logits) > 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return logits


class Crashing(_FaultyBackend):
    def fault(self, logits: Any, calls: int) -> Any:
        if calls > _CALLS_BEFORE_FAULT:
            os.kill(os.getpid(), signal.SIGSEGV)
        return logits


class CrashingAtExit(_FaultyBackend):
    """Sound until its libraries are torn down."""

    def fault(self, logits: Any, calls: int) -> Any:
        if calls == 1:
            atexit.register(os.kill, os.getpid(), signal.SIGSEGV)
        return logits


class Raising(_FaultyBackend):
    def fault(self, logits: Any, calls: int) -> Any:
        if calls > _CALLS_BEFORE_FAULT:
            raise RuntimeError("internal error of the runtime")
        return logits


class Slow(_FaultyBackend):
    def fault(self, logits: Any, calls: int) -> Any:
        if len(logits) > 1:
            time.sleep(60)
        return logits


class EnvironmentReporter(_FaultyBackend):
    """No fault: its facts are the environment variables it was opened with."""

    def open(self, artifact: Artifact, device: str, *, threads: int, stage: Callable[[Stage], None]) -> Session:
        session = OnnxRuntimeBackend.open(self, artifact, device, threads=threads, stage=stage)
        session.facts = {name: os.environ[name] for name in ("OMP_NUM_THREADS", "MBBENCH_CACHE")}
        return session


class _FailingProfile(_FaultySession, LayerProfile):
    def profile(self, images: Any, runs: int) -> tuple[NodeTime, ...]:
        raise RuntimeError("no counters here")


class FailingProfile(_FaultyBackend):
    """Sound except that `profile` raises."""

    def open(self, artifact: Artifact, device: str, *, threads: int, stage: Callable[[Stage], None]) -> Session:
        session = OnnxRuntimeBackend.open(self, artifact, device, threads=threads, stage=stage)
        return _FailingProfile(session, lambda logits, calls: logits)


class NoDevices(OnnxRuntimeBackend):
    def devices(self) -> Mapping[str, str]:
        raise RuntimeError("cannot open\n  the driver")


class NoVersions(OnnxRuntimeBackend):
    def versions(self) -> Mapping[str, str]:
        raise TypeError("the version is not a string")


class NoPrecisions(OnnxRuntimeBackend):
    def precisions(self, device: str) -> frozenset[Precision]:
        raise KeyError(device)


class NoDialects(OnnxRuntimeBackend):
    def dialects(self, device: str) -> Mapping[Precision, Dialect]:
        raise AttributeError("no instruction set")


class CopyingConverter(OnnxRuntimeBackend, Converter):
    """No fault: its format is its own, and a file in it is a copy of the ONNX file."""

    makes: ClassVar[Format] = "mine"

    def tools(self) -> Mapping[str, str]:
        return {"mine": "1"}

    def convert(self, artifact: Artifact, target: Path) -> None:
        shutil.copyfile(artifact.path, target)

    def open(self, artifact: Artifact, device: str, *, threads: int, stage: Callable[[Stage], None]) -> Session:
        assert (artifact.format, artifact.path.suffix) == ("mine", ".mine")
        return super().open(artifact, device, threads=threads, stage=stage)


class NotABackend:
    pass
