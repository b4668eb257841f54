"""TensorRT, or TensorRT-RTX, as an mbbench backend.

Both packages have the same API; `tensorrt` is taken where it is installed, else `tensorrt_rtx`. Networks are strongly
typed: the ONNX file alone decides precisions. Building needs no GPU where a compute capability is named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module, metadata
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

from mbbench.backend import Artifact, Backend, Dialect, Format, Session, Stage, pick_device
from mbbench.errors import BackendError
from mbbench.spec import Precision

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_PACKAGES = {"tensorrt": ("tensorrt", "tensorrt-cu12", "tensorrt-cu13"), "tensorrt_rtx": ("tensorrt-rtx-cu13",)}
_LARGEST_BATCH = 64
_DRIVER = "install NVIDIA's driver, or run this on a machine with an NVIDIA GPU"


class TensorRtBackend(Backend):
    formats: ClassVar[tuple[Format, ...]] = ("onnx",)

    def versions(self) -> Mapping[str, str]:
        _, distribution = _installed()
        return {distribution: metadata.version(distribution), "cuda-bindings": metadata.version("cuda-bindings")}

    def devices(self) -> Mapping[str, str]:
        _installed()
        return {f"cuda:{index}": _properties(index)[0] for index in range(_device_count())}

    def precisions(self, device: str) -> frozenset[Precision]:
        """Tensor cores run fp16 from compute capability 7.0, int8 from 7.2 and bf16 from 8.0."""
        _, capability = _properties(int(device.rpartition(":")[2]))
        found: set[Precision] = {"fp32"}
        if capability >= (7, 0):
            found.add("fp16")
        if capability >= (7, 2):
            found.add("int8")
        if capability >= (8, 0):
            found.add("bf16")
        return frozenset(found)

    def dialects(self, device: str) -> Mapping[Precision, Dialect]:
        return {"fp32": "fp32", "bf16": "bf16", "fp16": "fp16", "int8": "s8s8"}

    def open(self, artifact: Artifact, device: str, *, threads: int, stage: Callable[[Stage], None]) -> Session:
        stage("import")
        module, distribution = _installed()
        trt = import_module(module)
        devices = self.devices()
        name = pick_device(device, devices)
        index = int(name.rpartition(":")[2])
        _cuda("cudaSetDevice", index)
        stage("load")
        content = artifact.path.read_bytes()
        stage("compile")
        engine = build_engine(content, artifact.input_shape)
        logger = _logger(trt)
        runtime = trt.Runtime(logger)
        loaded = runtime.deserialize_cuda_engine(engine)
        if loaded is None:
            raise BackendError(f"TensorRT cannot load its engine: {logger.last}", _DRIVER)
        capability = ".".join(map(str, _properties(index)[1]))
        facts = {
            "precision": str(loaded.get_tensor_dtype("logits")).rpartition(".")[2].lower(),
            "tf32": "off",
            "device": f"{devices[name]} (compute capability {capability})",
            "package": distribution,
            "engine_bytes": str(len(engine)),
        }
        return _TensorRtSession(trt, runtime, loaded, artifact.input_shape, facts)


def build_engine(onnx: bytes, input_shape: tuple[int, int, int, int], compute_capability: str | None = None) -> bytes:
    """A serialized engine for batches of 1 to 64 (or to `input_shape`'s, if larger), tuned for `input_shape`'s.

    `compute_capability`, say "8.9", builds ahead of time for that GPU and needs none here; None builds for the GPU that
    is here. Raises `BackendError`.
    """
    trt = import_module(_installed()[0])
    logger = _logger(trt)
    # Making a builder looks for a driver and logs that there is none; that is no error of the build.
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(onnx):
        reasons = "; ".join(parser.get_error(i).desc() for i in range(parser.num_errors)) or logger.last
        raise BackendError(f"TensorRT cannot parse the ONNX model: {_one_line(reasons)}", "export the model again")
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # fp32 means fp32: TF32 keeps 10 bits of the mantissa
    if compute_capability is not None:
        _set_capability(trt, config, compute_capability)
    batch, *image = input_shape
    profile = builder.create_optimization_profile()
    name = network.get_input(0).name
    profile.set_shape(name, (1, *image), (batch, *image), (max(batch, _LARGEST_BATCH), *image))
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        remedy = _DRIVER if compute_capability is None else "choose another compute capability"
        raise BackendError(f"TensorRT cannot build the engine: {logger.last}", remedy)
    return bytes(engine)


class _TensorRtSession(Session):
    """Buffers for the largest batch seen so far, on the device, and a stream of its own."""

    def __init__(
        self,
        trt: ModuleType,
        runtime: Any,
        engine: Any,
        input_shape: tuple[int, int, int, int],
        facts: Mapping[str, str],
    ) -> None:
        self.facts = facts
        self._runtime, self._engine = runtime, engine  # the context needs both alive
        self._context = engine.create_execution_context()
        if self._context is None:
            raise BackendError("TensorRT cannot create an execution context", "free memory on the GPU")
        self._names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        self._input = next(n for n in self._names if engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT)
        self._output = next(n for n in self._names if engine.get_tensor_mode(n) == trt.TensorIOMode.OUTPUT)
        self._largest = engine.get_tensor_profile_shape(self._input, 0)[2][0]
        self._stream = _cuda("cudaStreamCreate")
        self._device: dict[str, int] = {}
        self._batch = self._capacity = 0
        self._prepare(input_shape)

    def _prepare(self, shape: tuple[int, ...]) -> None:
        """Set the shape, and grow the device's buffers if it is larger than any before."""
        batch = shape[0]
        if batch > self._largest:
            raise BackendError(f"batch {batch} is over the engine's {self._largest}", "lower bulk_batch or the batch")
        if not self._context.set_input_shape(self._input, shape):
            raise BackendError(f"TensorRT refuses the input shape {shape}", "this is a fault in the backend: report it")
        self._classes = int(self._context.get_tensor_shape(self._output)[1])
        if batch > self._capacity:
            self._free()
            sizes = {self._input: 4 * batch * shape[1] * shape[2] * shape[3], self._output: 4 * batch * self._classes}
            for name, size in sizes.items():
                self._device[name] = int(_cuda("cudaMalloc", size))
                self._context.set_tensor_address(name, self._device[name])
            self._capacity = batch
        self._batch = batch

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        import numpy as np

        if len(images) != self._batch:
            self._prepare(images.shape)
        logits = np.empty((len(images), self._classes), np.float32)
        kind = _memcpy_kind()
        source, size = images.ctypes.data, images.nbytes
        _cuda("cudaMemcpyAsync", self._device[self._input], source, size, kind.cudaMemcpyHostToDevice, self._stream)
        if not self._context.execute_async_v3(int(self._stream)):
            raise BackendError("TensorRT failed to run the engine", "see the driver's log")
        target, size = logits.ctypes.data, logits.nbytes
        _cuda("cudaMemcpyAsync", target, self._device[self._output], size, kind.cudaMemcpyDeviceToHost, self._stream)
        _cuda("cudaStreamSynchronize", self._stream)
        return logits

    def _free(self) -> None:
        while self._device:
            _cuda("cudaFree", self._device.popitem()[1])

    def close(self) -> None:
        self._free()
        _cuda("cudaStreamDestroy", self._stream)
        del self._context, self._engine, self._runtime


def _installed() -> tuple[str, str]:
    """The module and the distribution it comes from; raises `BackendError`."""
    for module, distributions in _PACKAGES.items():
        for distribution in distributions:
            try:
                metadata.version(distribution)
            except metadata.PackageNotFoundError:
                continue
            try:
                import_module(module)
            except (ImportError, OSError, RuntimeError) as error:
                raise BackendError(
                    f"{distribution} cannot be imported ({error})", f"reinstall {distribution}"
                ) from error
            return module, distribution
    raise BackendError("TensorRT is not installed", "run `pip install tensorrt-rtx-cu13`, or tensorrt")


def _set_capability(trt: ModuleType, config: Any, wanted: str) -> None:
    known = getattr(trt, "ComputeCapability", None)
    if known is None:
        raise BackendError("this TensorRT builds only for the GPU that is here", "install tensorrt-rtx-cu13 instead")
    names = {_dotted(name): value for name, value in known.__members__.items() if name.startswith("SM")}
    if wanted not in names:
        raise BackendError(f"TensorRT knows no compute capability {wanted}", f"choose one of {', '.join(names)}")
    config.num_compute_capabilities = 1
    config.set_compute_capability(names[wanted], 0)


def _dotted(name: str) -> str:
    """SM89 -> 8.9, SM120 -> 12.0."""
    digits = name.removeprefix("SM")
    return f"{digits[:-1]}.{digits[-1]}"


def _logger(trt: ModuleType) -> Any:
    """A logger that prints nothing and keeps the last error."""

    class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.last = "no reason given"

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.last = _one_line(message)

    return Logger()


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _runtime() -> Any:
    try:
        return import_module("cuda.bindings.runtime")
    except ImportError as error:
        raise BackendError(f"cuda-bindings cannot be imported ({error})", "run `pip install cuda-bindings`") from error


def _memcpy_kind() -> Any:
    return _runtime().cudaMemcpyKind


def _cuda(function: str, *arguments: Any) -> Any:
    """Call CUDA's runtime; its errors become `BackendError` with their name and number."""
    status, *values = getattr(_runtime(), function)(*arguments)
    if int(status):
        cause = {35: "no NVIDIA driver was found", 100: "no NVIDIA GPU was found", 2: "the GPU's memory is full"}
        text = cause.get(int(status), f"{function} failed")
        raise BackendError(f"{text} (cudaError {int(status)}, {status.name})", _DRIVER)
    return values[0] if values else None


def _device_count() -> int:
    return int(_cuda("cudaGetDeviceCount"))


def _properties(index: int) -> tuple[str, tuple[int, int]]:
    """The GPU's name and compute capability."""
    properties = _cuda("cudaGetDeviceProperties", index)
    name = properties.name
    return (name.decode() if isinstance(name, bytes) else str(name)), (properties.major, properties.minor)
