"""The backend MBBENCH_SLOWED, each call slowed by the share MBBENCH_SLOWDOWN, except for the file MBBENCH_BASELINE.

MBBENCH_BASELINE is the SHA-256 of the file.
"""

import os
from collections.abc import Callable, Mapping
from time import perf_counter_ns
from typing import Any

from mbbench import registry
from mbbench.backend import Artifact, Backend, Dialect, Session, Stage
from mbbench.spec import Precision


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


class SlowedBackend(Backend):
    def __init__(self) -> None:
        self._inner = registry.load(os.environ["MBBENCH_SLOWED"])
        self.formats = self._inner.formats  # type: ignore[misc]

    def versions(self) -> Mapping[str, str]:
        return self._inner.versions()

    def devices(self) -> Mapping[str, str]:
        return self._inner.devices()

    def precisions(self, device: str) -> frozenset[Precision]:
        return self._inner.precisions(device)

    def dialects(self, device: str) -> Mapping[Precision, Dialect]:
        return self._inner.dialects(device)

    def open(self, artifact: Artifact, device: str, *, threads: int, stage: Callable[[Stage], None]) -> Session:
        is_baseline = artifact.sha256 == os.environ.get("MBBENCH_BASELINE")
        share = 0.0 if is_baseline else float(os.environ.get("MBBENCH_SLOWDOWN", "0"))
        return _Slowed(self._inner.open(artifact, device, threads=threads, stage=stage), share)
