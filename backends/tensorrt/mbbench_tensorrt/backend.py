"""TensorRT, or TensorRT-RTX, as an mbbench backend.

Both packages have the same API: the backend uses `tensorrt` if it is installed, else `tensorrt_rtx`. Building for a
named compute capability needs no GPU.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from importlib import import_module, metadata
from pathlib import Path
from typing import ClassVar

from mbbench.backend import AheadOfTime, Artifact, Backend, Dialect, Format, Session, Stage, pick_device
from mbbench.errors import BackendError
from mbbench.nvidia.nvml import driver_version
from mbbench.nvidia.runtime import DRIVER, Gpu, count, cuda, gpu, index_of, native_precisions
from mbbench.spec import Precision, content_key
from mbbench_tensorrt import cache as engine_cache
from mbbench_tensorrt.build import build_engine, installed, make_logger, runs_on, supported_capability
from mbbench_tensorrt.session import TensorRtSession

_BUILDER = 1  # increment when `build_engine` builds another engine from the same file


class TensorRtBackend(Backend, AheadOfTime):
    """TensorRT on NVIDIA GPUs (`cuda:0` and so on); engines are also built for a compute capability (`8.9`)."""

    formats: ClassVar[tuple[Format, ...]] = ("onnx", "engine")
    builds: ClassVar[Format] = "engine"

    def versions(self) -> Mapping[str, str]:
        _, distribution = installed()
        return {distribution: metadata.version(distribution), "cuda-bindings": metadata.version("cuda-bindings")}

    def devices(self) -> Mapping[str, str]:
        _, distribution = installed()
        gpus = {f"cuda:{index}": gpu(index) for index in range(count())}
        if not gpus:
            raise BackendError("no NVIDIA GPU was found", DRIVER)
        supported = {name: local.name for name, local in gpus.items() if runs_on(local.capability)}
        if not supported:
            names = ", ".join(dict.fromkeys(local.description for local in gpus.values()))
            raise BackendError(
                f"{distribution} does not support {names}", "run `pip install tensorrt`, or use the backend torch"
            )
        return supported

    def precisions(self, device: str) -> frozenset[Precision]:
        return native_precisions(_capability(device))

    def dialects(self, device: str) -> Mapping[Precision, Dialect]:
        return {"fp32": "fp32", "bf16": "bf16", "fp16": "fp16", "int8": "s8s8"}

    def build(self, artifact: Artifact, target: Path, device: str) -> None:
        capability = None if _is_local(device) else device
        if capability is None:
            cuda("cudaSetDevice", index_of(device))
        target.write_bytes(build_engine(artifact.path.read_bytes(), artifact.input_shape, capability))

    def open(self, artifact: Artifact, device: str, *, threads: int, stage: Callable[[Stage], None]) -> Session:
        stage("import")
        module, distribution = installed()
        trt = import_module(module)
        devices = self.devices()
        name = pick_device(device, devices)
        index = index_of(name)
        cuda("cudaSetDevice", index)
        stage("load")
        content = artifact.path.read_bytes()
        stage("compile")
        target = _target(gpu(index), distribution)
        key = content_key(hashlib.sha256(content).hexdigest(), artifact.input_shape, target)
        if artifact.format == "engine":
            engine, origin = _verified(artifact, content), "prebuilt"
        else:
            timings = engine_cache.path_of(content_key(target), "timings")
            engine, built = engine_cache.recall_or_make(
                engine_cache.path_of(key, "engine"),
                lambda: build_engine(content, artifact.input_shape, timings=timings),
            )
            origin = "built" if built else "from the cache"
        logger = make_logger(trt)
        runtime = trt.Runtime(logger)
        loaded = runtime.deserialize_cuda_engine(engine)
        if loaded is None:
            raise BackendError(f"TensorRT cannot load the engine: {logger.last}", f"build it for {devices[name]}")
        facts = {
            "tf32": "off",
            "device": gpu(index).description,
            "package": distribution,
            "engine": origin,
            "engine_bytes": str(len(engine)),
        }
        kernels = engine_cache.path_of(key, "kernels")
        return TensorRtSession(trt, runtime, loaded, index, artifact.input_shape, facts, kernels)


def _verified(artifact: Artifact, engine: bytes) -> bytes:
    """Return `engine`, which is executable code. Raises `BackendError` if its SHA-256 is not the artifact's."""
    if hashlib.sha256(engine).hexdigest() != artifact.sha256:
        raise BackendError(f"{artifact.path} has changed since it was checked", "write it again with `mbbench export`")
    return engine


def _is_local(device: str) -> bool:
    return device.startswith("cuda:")


def _capability(device: str) -> tuple[int, ...]:
    """Return the compute capability of a local GPU, or the one that `device` names."""
    if _is_local(device):
        return gpu(index_of(device)).capability
    return tuple(map(int, supported_capability(device).split(".")))


def _target(local: Gpu, distribution: str) -> tuple[object, ...]:
    """Return everything that an engine depends on besides its file: the GPU, the driver and the builder."""
    return (local.name, local.capability, driver_version(), distribution, metadata.version(distribution), _BUILDER)
