"""TensorRT, or TensorRT-RTX, as an mbbench backend.

Both packages have the same API; `tensorrt` is taken where it is installed, else `tensorrt_rtx`. Building needs no GPU
where a compute capability is named.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from importlib import import_module, metadata
from pathlib import Path
from typing import ClassVar

from mbbench.backend import AheadOfTime, Artifact, Backend, Dialect, Format, Session, Stage, pick_device
from mbbench.errors import BackendError
from mbbench.spec import Precision, content_key
from mbbench_tensorrt import cache as stored
from mbbench_tensorrt.build import build_engine, installed, known_capability, make_logger
from mbbench_tensorrt.cuda import Gpu, count, cuda, driver_version, gpu
from mbbench_tensorrt.session import TensorRtSession

_BUILDER = 1  # raise it when `build_engine` makes another engine of the same file


class TensorRtBackend(Backend, AheadOfTime):
    """Devices are `cuda:0` and so on. For an engine to be built ahead of time, a compute capability is one too."""

    formats: ClassVar[tuple[Format, ...]] = ("onnx", "engine")
    builds: ClassVar[Format] = "engine"

    def versions(self) -> Mapping[str, str]:
        _, distribution = installed()
        return {distribution: metadata.version(distribution), "cuda-bindings": metadata.version("cuda-bindings")}

    def devices(self) -> Mapping[str, str]:
        installed()
        return {f"cuda:{index}": gpu(index).name for index in range(count())}

    def precisions(self, device: str) -> frozenset[Precision]:
        """Tensor cores run fp16 from compute capability 7.0, int8 from 7.2 and bf16 from 8.0."""
        capability = _capability(device)
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

    def build(self, artifact: Artifact, target: Path, device: str) -> None:
        capability = None if _is_here(device) else device
        if capability is None:
            cuda("cudaSetDevice", _index(device))
        target.write_bytes(build_engine(artifact.path.read_bytes(), artifact.input_shape, capability))

    def open(self, artifact: Artifact, device: str, *, threads: int, stage: Callable[[Stage], None]) -> Session:
        stage("import")
        module, distribution = installed()
        trt = import_module(module)
        devices = self.devices()
        name = pick_device(device, devices)
        index = _index(name)
        cuda("cudaSetDevice", index)
        stage("load")
        content = artifact.path.read_bytes()
        stage("compile")
        place = _place(gpu(index), distribution)
        key = content_key(hashlib.sha256(content).hexdigest(), artifact.input_shape, place)
        if artifact.format == "engine":
            engine, origin = _as_noted(artifact, content), "given"
        else:
            timings = stored.path_of(content_key(place), "timings")
            engine, built = stored.recall_or(
                stored.path_of(key, "engine"), lambda: build_engine(content, artifact.input_shape, timings=timings)
            )
            origin = "built" if built else "from the cache"
        logger = make_logger(trt)
        runtime = trt.Runtime(logger)
        loaded = runtime.deserialize_cuda_engine(engine)
        if loaded is None:
            raise BackendError(f"TensorRT cannot load the engine: {logger.last}", f"build it for {devices[name]}")
        facts = {
            "tf32": "off",
            "device": f"{devices[name]} (compute capability {'.'.join(map(str, gpu(index).capability))})",
            "package": distribution,
            "engine": origin,
            "engine_bytes": str(len(engine)),
        }
        kernels = stored.path_of(key, "kernels")
        return TensorRtSession(trt, runtime, loaded, index, artifact.input_shape, facts, kernels)


def _as_noted(artifact: Artifact, engine: bytes) -> bytes:
    """The engine, which is code, if it is still what was found fit to be opened; raises `BackendError`."""
    if hashlib.sha256(engine).hexdigest() != artifact.sha256:
        raise BackendError(f"{artifact.path} was changed", "write it again with `mbbench export`")
    return engine


def _is_here(device: str) -> bool:
    return device.startswith("cuda:")


def _index(device: str) -> int:
    return int(device.rpartition(":")[2])


def _capability(device: str) -> tuple[int, ...]:
    """Of a GPU that is here, or one that is named by it."""
    if _is_here(device):
        return gpu(_index(device)).capability
    return tuple(map(int, known_capability(device).split(".")))


def _place(found: Gpu, distribution: str) -> tuple[object, ...]:
    """What an engine is built for, and by what: another of any of these needs another engine."""
    return (found.name, found.capability, driver_version(), distribution, metadata.version(distribution), _BUILDER)
