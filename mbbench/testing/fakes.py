"""A fake backend with scripted latencies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, ClassVar, get_args

from mbbench.backend import Artifact, Backend, Format, Session, Stage
from mbbench.spec import Precision

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class FakeClock:
    """A clock in nanoseconds that moves only when `now_ns` is set."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


class FakeSession(Session):
    """A session whose calls advance `clock` by the next of `latencies_ms`, or the last; the logits are zeros."""

    def __init__(self, latencies_ms: Iterable[float], clock: FakeClock, classes: int = 10) -> None:
        self.facts: Mapping[str, str] = {"precision": "float32"}
        self._latencies_ms = iter(latencies_ms)
        self._latency_ms = 0.0
        self._clock, self._classes = clock, classes

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        import numpy as np

        self._latency_ms = next(self._latencies_ms, self._latency_ms)
        self._clock.now_ns += round(self._latency_ms * 1e6)
        return np.zeros((len(images), self._classes), np.float32)


class FakeBackend(Backend):
    """A backend that opens any artifact as a `FakeSession`."""

    formats: ClassVar[tuple[Format, ...]] = ("onnx",)

    def __init__(self, latencies_ms: Iterable[float] = (1.0,), clock: FakeClock | None = None) -> None:
        self._latencies_ms, self._clock = latencies_ms, clock or FakeClock()

    def versions(self) -> Mapping[str, str]:
        return {"fake": "1"}

    def devices(self) -> Mapping[str, str]:
        return {"cpu": "a fake"}

    def precisions(self, device: str) -> frozenset[Precision]:
        return frozenset({"fp32"})

    def open(self, artifact: Artifact, device: str, *, threads: int, stage: Callable[[Stage], None]) -> Session:
        for name in get_args(Stage):
            stage(name)
        return FakeSession(self._latencies_ms, self._clock, artifact.spec.classes)
