"""ONNX Runtime as an mbbench backend."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

from mbbench.backend import (
    Artifact,
    Backend,
    Dialect,
    Executed,
    Format,
    LayerAudit,
    LayerProfile,
    NodeTime,
    Session,
    Stage,
    installed_version,
    pick_device,
)
from mbbench.errors import BackendError, first_line
from mbbench.machine import fingerprint
from mbbench.spec import Precision

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_PROVIDERS = {"cpu": "CPUExecutionProvider"}
_KERNEL_TIME = "_kernel_time"  # suffix of a node's name in the trace


class OnnxRuntimeBackend(Backend):
    """ONNX Runtime on its CPU execution provider."""

    formats: ClassVar[tuple[Format, ...]] = ("onnx",)

    def versions(self) -> Mapping[str, str]:
        return {"onnxruntime": installed_version("onnxruntime")}

    def devices(self) -> Mapping[str, str]:
        available = _onnxruntime().get_available_providers()
        return {name: fingerprint().cpu for name, provider in _PROVIDERS.items() if provider in available}

    def precisions(self, device: str) -> frozenset[Precision]:
        return frozenset({"fp32", "int8"})

    def dialects(self, device: str) -> Mapping[Precision, Dialect]:
        return {"fp32": "fp32", "int8": "u8u8" if fingerprint().saturates_int8 else "u8s8f"}

    def open(self, artifact: Artifact, device: str, *, threads: int, stage: Callable[[Stage], None]) -> Session:
        stage("import")
        ort = _onnxruntime()
        device = pick_device(device, _PROVIDERS)
        stage("compile")  # one call reads and compiles; reading the file first would hold a large model twice

        def make_session(optimized: Path | None = None, trace: Path | None = None) -> Any:
            options = ort.SessionOptions()
            options.intra_op_num_threads = threads
            options.inter_op_num_threads = 1
            options.log_severity_level = 4  # errors are raised as exceptions
            if optimized is not None:
                options.optimized_model_filepath = str(optimized)
            if trace is not None:
                options.enable_profiling = True
                options.profile_file_prefix = str(trace)
            return ort.InferenceSession(artifact.path, options, providers=[_PROVIDERS[device]])

        try:
            session = make_session()
        except Exception as error:  # the binding's exceptions have no common base class
            raise BackendError(
                f"ONNX Runtime cannot open {artifact.path}: {first_line(error)}", "export the model again"
            ) from error
        return _OnnxRuntimeSession(session, make_session)


class _OnnxRuntimeSession(Session, LayerAudit, LayerProfile):
    def __init__(self, session: Any, make_session: Callable[..., Any]) -> None:
        self._make_session = make_session
        self._run = session.run
        self._input = session.get_inputs()[0].name
        self._outputs = [session.get_outputs()[0].name]
        self.facts = {
            "precision": session.get_inputs()[0].type.removeprefix("tensor(").removesuffix(")"),
            "threads": str(session.get_session_options().intra_op_num_threads),
            "provider": session.get_providers()[0],
        }

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = self._run(self._outputs, {self._input: images})[0]
        return logits

    def executed(self) -> tuple[Executed, ...]:
        """Return the nodes of the optimized graph, which a second session writes to a file."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "optimized.onnx")
            self._make_session(path)
            return _read_nodes(path)

    def profile(self, images: NDArray[np.float32], runs: int) -> tuple[NodeTime, ...]:
        """Return the nodes' times, from a trace that a second session writes."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "optimized.onnx")
            session = self._make_session(path, Path(folder, "trace"))
            for _ in range(runs + 1):
                session.run(self._outputs, {self._input: images})
            events = json.loads(Path(session.end_profiling()).read_bytes())
            return _node_times(events, _read_nodes(path), runs)

    def close(self) -> None:
        del self._run


def _read_nodes(path: Path) -> tuple[Executed, ...]:
    """Return the nodes of the optimized graph at `path`."""
    import onnx

    return tuple(
        Executed((node.name, *node.input), node.op_type, "int8" if _is_integer(node.op_type) else "fp32")
        for node in onnx.load(path).graph.node
    )


def _node_times(events: Iterable[Mapping[str, Any]], nodes: Sequence[Executed], runs: int) -> tuple[NodeTime, ...]:
    """Return the nodes' median times in a trace of one warm-up call and `runs` timed calls.

    Return an empty tuple unless every node has exactly one event per call. The trace truncates times to whole
    microseconds, so the mean loss of 0.5 us is added to each.
    """
    times: dict[str, list[float]] = {}
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith(_KERNEL_TIME):
            times.setdefault(event["name"].removesuffix(_KERNEL_TIME), []).append(event["dur"] + 0.5)
    if sorted(times) != sorted(node.names[0] for node in nodes):
        return ()
    if any(len(durations) != runs + 1 for durations in times.values()):
        return ()
    return tuple(
        NodeTime(node.names, node.type, node.precision, median(times[node.names[0]][1:]) / 1e3) for node in nodes
    )


def _is_integer(operator: str) -> bool:
    """Return whether `operator` is an integer kernel: QLinearConv, QGemm, ConvInteger, MatMulInteger, ..."""
    return operator.startswith(("QLinear", "QGemm")) or operator.endswith("Integer")


def _onnxruntime() -> ModuleType:
    """Import ONNX Runtime and switch its telemetry off. Raises `BackendError` if the import fails."""
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendError(f"ONNX Runtime cannot be imported ({error})", "run `pip install onnxruntime`") from error
    onnxruntime.disable_telemetry_events()
    module: ModuleType = onnxruntime
    return module
