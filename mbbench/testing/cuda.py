"""A fake of `torch.cuda` on the CPU, for tests of backends where there is no GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


class FakeGraph(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A fake CUDA graph: it records PyTorch's operators, and repeats them on the same memory."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operators: list[tuple[Any, Any, Any, Any]] = []
        self.replays = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = function(*args, **(kwargs or {}))
        self.operators.append((function, args, kwargs or {}, output))
        return output

    def replay(self) -> None:
        self.replays += 1
        for function, args, kwargs, output in self.operators:
            output.copy_(function(*args, **kwargs))


class FakeCuda:
    """A fake of the parts of `torch.cuda` in `replacements`. Each event is a millisecond later than the one before."""

    def __init__(self) -> None:
        self.replacements: Mapping[str, Callable[..., Any]] = {
            "Stream": lambda device: SimpleNamespace(synchronize=lambda: None),
            "stream": lambda stream: nullcontext(),
            "CUDAGraph": self._new_graph,
            "graph": self._capture,
            "Event": self._new_event,
            "synchronize": lambda device: None,
            "empty_cache": lambda: None,
        }
        self.graphs: list[FakeGraph] = []
        self.refuses_graphs = False
        self.now = 0

    def _new_graph(self) -> FakeGraph:
        self.graphs.append(FakeGraph())
        return self.graphs[-1]

    def _capture(self, graph: FakeGraph, *, stream: object, capture_error_mode: str) -> FakeGraph:
        assert capture_error_mode == "thread_local"
        if self.refuses_graphs:
            raise RuntimeError("operation not permitted when stream is capturing\nSearch for it")
        return graph

    def _new_event(self, *, enable_timing: bool) -> SimpleNamespace:
        event = SimpleNamespace()

        def record() -> None:
            self.now += 1
            event.at = self.now

        event.record, event.elapsed_time = record, lambda end: float(end.at - event.at)
        return event
