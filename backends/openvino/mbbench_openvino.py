"""OpenVINO as an mbbench backend."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import pairwise
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
    Requests,
    Session,
    Stage,
    Streams,
    installed_version,
    pick_device,
)
from mbbench.errors import BackendError
from mbbench.machine import fingerprint
from mbbench.spec import Precision

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_PRECISIONS = {"f32": "fp32", "f16": "fp16", "u8": "int8", "i8": "int8"}
_HINTS: dict[Precision, str] = {"bf16": "bf16", "fp16": "f16"}
_CAPABILITIES: dict[str, Precision] = {"FP32": "fp32", "BF16": "bf16", "FP16": "fp16", "INT8": "int8"}
_MICROSECOND = timedelta(microseconds=1)


class OpenVinoBackend(Backend, Streams):
    """OpenVINO on every device that it finds."""

    formats: ClassVar[tuple[Format, ...]] = ("onnx",)

    def versions(self) -> Mapping[str, str]:
        return {"openvino": installed_version("openvino")}

    def devices(self) -> Mapping[str, str]:
        core = _openvino().Core()
        return {name: str(core.get_property(name, "FULL_DEVICE_NAME")).strip() for name in core.available_devices}

    def precisions(self, device: str) -> frozenset[Precision]:
        capabilities = _openvino().Core().get_property(device, "OPTIMIZATION_CAPABILITIES")
        return frozenset(_CAPABILITIES[name] for name in capabilities if name in _CAPABILITIES)

    def dialects(self, device: str) -> Mapping[Precision, Dialect]:
        int8: Dialect = "u8s7" if device.startswith("CPU") and fingerprint().saturates_int8 else "u8s8p"
        return {"fp32": "fp32", "bf16": "fp32", "fp16": "fp32", "int8": int8}

    def open(self, artifact: Artifact, device: str, *, threads: int, stage: Callable[[Stage], None]) -> Session:
        stage("import")
        core = _openvino().Core()
        device = pick_device(device, core.available_devices)
        stage("load")
        model = _read(core, artifact)
        stage("compile")
        return _OpenVinoSession(core, model, artifact, device, _settings(artifact, device, threads, "LATENCY"))

    def open_requests(self, artifact: Artifact, device: str, *, threads: int, streams: int | None) -> Requests:
        core = _openvino().Core()
        device = pick_device(device, core.available_devices)
        settings = _settings(artifact, device, threads, "THROUGHPUT")
        if streams is not None:
            settings["NUM_STREAMS"] = streams
        compiled = _compile(core, _read(core, artifact), artifact.input_shape, device, settings)
        return _OpenVinoRequests(compiled, device)


def _read(core: Any, artifact: Artifact) -> Any:
    try:
        return core.read_model(artifact.path)
    except RuntimeError as error:
        raise BackendError(
            f"OpenVINO cannot read {artifact.path}: {_last_line(error)}", "export the model again"
        ) from error


def _settings(artifact: Artifact, device: str, threads: int, hint: str) -> dict[str, Any]:
    # Without the precision hint, OpenVINO runs an fp32 model in bf16 on CPUs that have bf16.
    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": hint,
        "INFERENCE_PRECISION_HINT": _HINTS.get(artifact.precision, "f32"),
    }
    if device.startswith("CPU"):
        settings["INFERENCE_NUM_THREADS"] = threads
    return settings


def _compile(core: Any, model: Any, shape: Sequence[int], device: str, settings: Mapping[str, Any]) -> Any:
    """Compile a copy of `model` for inputs of `shape` (N, 3, H, W). Raises `BackendError` if OpenVINO fails."""
    reshaped = model.clone()
    reshaped.reshape(list(shape))
    try:
        return core.compile_model(reshaped, device, settings)
    except RuntimeError as error:
        raise BackendError(
            f"OpenVINO cannot compile the model for {device}: {_last_line(error)}",
            "try another device or another version of OpenVINO",
        ) from error


def _facts(compiled: Any, device: str) -> dict[str, str]:
    return {
        "precision": str(compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()),
        "threads": str(compiled.get_property("INFERENCE_NUM_THREADS")) if device.startswith("CPU") else "n/a",
        "streams": str(compiled.get_property("NUM_STREAMS")),
    }


class _OpenVinoSession(Session, LayerAudit, LayerProfile):
    """A session with one compiled model per batch size: static shapes are faster than a symbolic batch."""

    def __init__(self, core: Any, model: Any, artifact: Artifact, device: str, settings: Mapping[str, Any]) -> None:
        self._tensor = _openvino().Tensor
        self._core, self._model, self._device, self._settings = core, model, device, settings
        self._shape = artifact.input_shape[1:]
        self._requests: dict[int, Any] = {}
        self._request: Any = None
        self._bound: NDArray[np.float32] | None = None
        compiled = self._compile(artifact.batch)
        self._requests[artifact.batch] = compiled.create_infer_request()
        name = str(core.get_property(device, "FULL_DEVICE_NAME")).strip()
        self.facts = {**_facts(compiled, device), "device": name}

    def _compile(self, batch: int, *, count_times: bool = False) -> Any:
        settings = {**self._settings, "PERF_COUNT": count_times}
        return _compile(self._core, self._model, (batch, *self._shape), self._device, settings)

    def executed(self) -> tuple[Executed, ...]:
        return tuple(node for _, node in _nodes(self._request.get_compiled_model()))

    def profile(self, images: NDArray[np.float32], runs: int) -> tuple[NodeTime, ...]:
        compiled = self._compile(len(images), count_times=True)
        request = compiled.create_infer_request()
        request.set_input_tensor(self._tensor(images, shared_memory=True))
        readings: dict[str, list[int]] = {}
        executed: set[str] = set()
        for _ in range(runs + 1):
            request.infer()
            for node in request.profiling_info:
                readings.setdefault(node.node_name, []).append(node.real_time // _MICROSECOND)
                # OpenVINO reports a node as not executed once its mean time is below 1 us.
                if node.status == node.Status.EXECUTED:
                    executed.add(node.node_name)
        call_times = _from_running_means if self._device.startswith("CPU") else _from_single_times
        return tuple(
            NodeTime(node.names, node.type, node.precision, median(call_times(readings[name])) / 1e3)
            for name, node in _nodes(compiled)
            if name in executed
        )

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        # Binding takes 4 us, 2 % of the smallest model's latency, so an array that is already bound is not rebound.
        if images is not self._bound:
            self._bind(images)
        logits: NDArray[np.float32] = self._request.infer().to_tuple()[0]  # the cheapest way to a copy
        return logits

    def _bind(self, images: NDArray[np.float32]) -> None:
        if len(images) not in self._requests:
            self._requests[len(images)] = self._compile(len(images)).create_infer_request()
        self._request = self._requests[len(images)]
        self._request.set_input_tensor(self._tensor(images, shared_memory=True))
        self._bound = images

    def close(self) -> None:
        self._requests.clear()
        self._request = self._bound = None


class _OpenVinoRequests(Requests):
    """Concurrent requests, as many as OpenVINO finds optimal.

    A callback costs up to a seventh of the throughput, so none is set before it is needed.
    """

    def __init__(self, compiled: Any, device: str) -> None:
        ov = _openvino()
        count = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self._tensor = ov.Tensor
        self._queue = ov.AsyncInferQueue(compiled, count)
        self._bound: NDArray[np.float32] | None = None
        self._has_callback = False
        self.facts = {**_facts(compiled, device), "requests": str(count)}

    def submit(self, images: NDArray[np.float32], done: Callable[[NDArray[np.float32]], None] | None = None) -> None:
        if images is not self._bound:
            self.wait()
            for request in self._queue:
                request.set_input_tensor(self._tensor(images, shared_memory=True))
            self._bound = images
        if done is not None and not self._has_callback:
            self.wait()
            self._queue.set_callback(_pass_logits)
            self._has_callback = True
        self._queue.start_async(None, done)

    def wait(self) -> None:
        try:
            self._queue.wait_all()
        except RuntimeError as error:
            raise BackendError(f"OpenVINO cannot run a request: {_last_line(error)}", "lower --streams") from error

    def close(self) -> None:
        self.wait()
        del self._queue


def _pass_logits(request: Any, done: Callable[[NDArray[np.float32]], None] | None) -> None:
    if done is not None:
        done(request.get_output_tensor().data)


def _nodes(compiled: Any) -> Iterator[tuple[str, Executed]]:
    """Yield the name and the node of each operation in the executed graph, in order."""
    for node in compiled.get_runtime_model().get_ordered_ops():
        name = node.get_friendly_name()
        yield name, _executed(name, {key: value.astype(str) for key, value in node.get_rt_info().items()})


def _executed(name: str, info: Mapping[str, str]) -> Executed:
    """Return a node from its runtime information.

    `runtimePrecision` is the type that the node computes in: u8 or i8 for integer kernels.
    """
    precision = info["runtimePrecision"]
    origins = tuple(part for part in info["originalLayersNames"].split(",") if part)
    return Executed(origins or (name,), info["layerType"], _PRECISIONS.get(precision, precision))


def _from_running_means(means: Sequence[int]) -> list[float]:
    """Return the microseconds of each call after the first, from the running mean that a CPU reports after every call.

    OpenVINO truncates each call's time and the mean to whole microseconds, so the time of call k is exact to k
    microseconds. Shorter times are raised to 0.5 us, half the resolution of the counter.
    """
    calls = enumerate(pairwise(means), 2)
    return [max(k * mean - (k - 1) * previous_mean + 1, 0.5) for k, (previous_mean, mean) in calls]


def _from_single_times(times: Sequence[int]) -> list[float]:
    return [max(time, 0.5) for time in times[1:]]


def _openvino() -> ModuleType:
    """Import OpenVINO without its telemetry client. Raises `BackendError` if the import fails."""
    # OpenVINO imports the client if it is installed; None makes it fall back to its silent stub.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as error:
        raise BackendError(f"OpenVINO cannot be imported ({error})", "run `pip install openvino`") from error
    module: ModuleType = openvino
    return module


def _last_line(error: Exception) -> str:
    """Return the last line that is not blank: OpenVINO's messages are stack dumps that end in the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
