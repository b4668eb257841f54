"""Building of engines from ONNX files. Networks are strongly typed: the file alone decides precisions."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module, metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from mbbench import cache
from mbbench.errors import BackendError
from mbbench.nvidia.runtime import DRIVER

_PACKAGES = {"tensorrt": ("tensorrt", "tensorrt-cu12", "tensorrt-cu13"), "tensorrt_rtx": ("tensorrt-rtx-cu13",)}
_LARGEST_BATCH = 64


def installed() -> tuple[str, str]:
    """Return TensorRT's module and its distribution. Raises `BackendError` if neither package is installed."""
    for module, distributions in _PACKAGES.items():
        for distribution in distributions:
            try:
                metadata.version(distribution)
            except metadata.PackageNotFoundError:
                continue
            return module, distribution
    raise BackendError("TensorRT is not installed", "run `pip install tensorrt-rtx-cu13` or `pip install tensorrt`")


def build_engine(
    onnx: bytes,
    input_shape: tuple[int, int, int, int],
    compute_capability: str | None = None,
    timings: Path | None = None,
) -> bytes:
    """Return a serialized engine for batches of 1 to 64 (or up to `input_shape`'s, if larger), tuned for `input_shape`.

    A `compute_capability` such as "8.9" builds ahead of time for that GPU and needs no GPU; None builds for the local
    GPU. `timings` is the file in which TensorRT keeps the timings of its kernels. Raises `BackendError`.
    """
    trt = import_module(installed()[0])
    logger = make_logger(trt)
    # Creating a builder logs an error if there is no driver; building does not need one.
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(onnx) or network.num_inputs != 1:  # it takes some damaged files for an empty network
        reasons = "; ".join(parser.get_error(i).desc() for i in range(parser.num_errors)) or logger.last
        raise BackendError(f"TensorRT cannot parse the ONNX model: {_one_line(reasons)}", "export the model again")
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # TF32 keeps 10 bits of the mantissa, and fp32 must be fp32
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # lets the inspector report types and origins
    if compute_capability is not None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(_capabilities(trt)[supported_capability(compute_capability)], 0)
    batch, *image = input_shape
    profile = builder.create_optimization_profile()
    name = network.get_input(0).name
    profile.set_shape(name, (1, *image), (batch, *image), (max(batch, _LARGEST_BATCH), *image))
    config.add_optimization_profile(profile)
    with _timing_cache(config, timings):
        engine = builder.build_serialized_network(network, config)
    if engine is None:
        remedy = DRIVER if compute_capability is None else "choose another compute capability"
        raise BackendError(f"TensorRT cannot build the engine: {logger.last}", remedy)
    return bytes(engine)


def supported_capability(capability: str) -> str:
    """Return `capability` if TensorRT builds for it. Raises `BackendError` with the supported ones otherwise."""
    names = _capabilities(import_module(installed()[0]))
    if capability not in names:
        raise BackendError(
            f"TensorRT does not support compute capability {capability}", f"choose one of {', '.join(names)}"
        )
    return capability


def runs_on(capability: tuple[int, int]) -> bool:
    """Return whether the installed TensorRT runs on a GPU of this compute capability.

    TensorRT-RTX leaves out H100, H200 and B200 (9.0, 10.0), and runs on all that are newer than those it names.
    """
    module, _ = installed()
    if module == "tensorrt":
        return True
    named = [tuple(map(int, name.split("."))) for name in _capabilities(import_module(module))]
    return capability in named or capability > max(named)


def _capabilities(trt: ModuleType) -> dict[str, Any]:
    capabilities = getattr(trt, "ComputeCapability", None)
    if capabilities is None:
        raise BackendError("this version of TensorRT builds only for the local GPU", "install tensorrt-rtx-cu13")
    return {_dotted(name): value for name, value in capabilities.__members__.items() if name.startswith("SM")}


def _dotted(name: str) -> str:
    """Return the dotted form of a compute capability: SM89 -> 8.9, SM120 -> 12.0."""
    digits = name.removeprefix("SM")
    return f"{digits[:-1]}.{digits[-1]}"


@contextmanager
def _timing_cache(config: Any, timings: Path | None) -> Iterator[None]:
    """Build with the timings of earlier builds, and store those of this one. A no-op in TensorRT-RTX."""
    if timings is None:
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # from TensorRT-RTX, which times nothing
        known = config.create_timing_cache(timings.read_bytes() if timings.exists() else b"")
        if known is None or not config.set_timing_cache(known, False):  # from another version, or torn
            known = config.create_timing_cache(b"")
            config.set_timing_cache(known, False)
        yield
        content = bytes(known.serialize())
    with cache.atomic(timings) as temporary:
        temporary.write_bytes(content)


def make_logger(trt: ModuleType) -> Any:
    """Return a logger that prints nothing and keeps the last error."""

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
