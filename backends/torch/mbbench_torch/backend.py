"""PyTorch as two mbbench backends: `torch` (torch.compile) and `torch-eager`, on the CPU and on NVIDIA GPUs.

`torch` compiles because that was faster on CPUs in all measurements (benchmarks/torch_modes.py). Both backends run
channels-last, with batch norm folded as it would be in deployment.
"""

from __future__ import annotations

import os
import shutil
from abc import abstractmethod
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from mbbench.backend import Artifact, Backend, Dialect, Executed, Format, Session, Stage, installed_version, pick_device
from mbbench.errors import BackendError, first_line
from mbbench.machine import fingerprint
from mbbench.nvidia import runtime
from mbbench.spec import Precision
from mbbench_torch import layers
from mbbench_torch.compiled import Call, channels_last, compile_module
from mbbench_torch.cpu import CpuSession
from mbbench_torch.gpu import GpuSession

if TYPE_CHECKING:
    import torch

# A precision is native if the CPU has any of these extensions; otherwise PyTorch converts to fp32 and back.
_EXTENSIONS: dict[Precision, set[str]] = {
    "bf16": {"avx512_bf16", "amx_bf16", "bf16"},
    "fp16": {"avx512_fp16", "amx_fp16", "asimdhp"},
    "int8": {"avx512_vnni", "avx_vnni", "amx_int8"},
}
_CUDA_LIBRARIES = ("libtorch_cuda.so", "torch_cuda.dll")


class _TorchBackend(Backend):
    formats: ClassVar[tuple[Format, ...]] = ("onnx",)
    mode: ClassVar[str]
    graphs: ClassVar[bool]  # whether calls on a GPU are CUDA graphs

    @abstractmethod
    def prepare(self, module: torch.fx.GraphModule, example: torch.Tensor) -> tuple[Call, tuple[Executed, ...]]:
        """Return the function that a session calls, and the nodes that it executes."""

    def versions(self) -> Mapping[str, str]:
        return {"torch": installed_version("torch")}

    def devices(self) -> Mapping[str, str]:
        self.versions()
        return {"cpu": fingerprint().cpu, **{f"cuda:{index}": gpu.name for index, gpu in enumerate(_gpus())}}

    def precisions(self, device: str) -> frozenset[Precision]:
        if _is_gpu(device):
            native = runtime.native_precisions(runtime.gpu(runtime.index_of(device)).capability)
        else:
            isa = set(fingerprint().isa)
            native = frozenset({"fp32", *(name for name, extensions in _EXTENSIONS.items() if isa & extensions)})
        return native & self.dialects(device).keys()

    def dialects(self, device: str) -> Mapping[Precision, Dialect]:
        return {"fp32": "fp32", "bf16": "fp32", "fp16": "fp32"}

    def open(self, artifact: Artifact, device: str, *, threads: int, stage: Callable[[Stage], None]) -> Session:
        stage("import")
        import torch

        # Only a session on a GPU asks for GPUs: loading CUDA takes time and memory.
        name = "cpu" if device.lower() in ("", "cpu") else pick_device(device, self.devices())
        torch.set_num_threads(threads)
        stage("load")
        module = _load(artifact)
        stage("compile")
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(artifact.precision, torch.float32)
        facts = {
            "precision": "int8" if artifact.precision == "int8" else str(dtype).removeprefix("torch."),
            "threads": str(torch.get_num_threads()),
            "mode": self.mode,
            "layout": "channels-last",
        }
        target = torch.device("cpu")
        if _is_gpu(name):
            target, gpu_facts = _start_gpu(runtime.index_of(name))
            facts |= gpu_facts
        if dtype != torch.float32:
            module = module.to(dtype)
        module = module.to(memory_format=torch.channels_last).to(target)  # type: ignore[call-overload]
        # An example made outside is not an inference tensor, and the first call would compile again.
        with torch.inference_mode():
            call, executed = self.prepare(module, torch.zeros(artifact.input_shape, dtype=dtype, device=target))
        if _is_gpu(name):
            return GpuSession(call, facts, dtype, executed, target, artifact.input_shape, graphs=self.graphs)
        return CpuSession(call, facts, dtype, executed)


class EagerBackend(_TorchBackend):
    """PyTorch without compilation: `torch-eager`."""

    mode = "eager"
    graphs = False

    def prepare(self, module: torch.fx.GraphModule, example: torch.Tensor) -> tuple[Call, tuple[Executed, ...]]:
        executed = [
            Executed((name,), operator, layers.precision_name(example.dtype))
            for name, operator in layers.of_module(module)
        ]
        return channels_last(module), tuple(executed)


class CompiledBackend(_TorchBackend):
    """PyTorch with torch.compile: `torch`. Only on a CPU does it have INT8."""

    mode = "compile"
    graphs = True

    def devices(self) -> Mapping[str, str]:
        compiler = os.environ.get("CXX", "g++")
        if shutil.which(compiler) is None:
            raise BackendError(
                f"torch.compile needs a C++ compiler, and {compiler} is not on the PATH",
                "install one (`apt install g++`) or use --backend torch-eager",
            )
        return super().devices()

    def dialects(self, device: str) -> Mapping[Precision, Dialect]:
        int8: Mapping[Precision, Dialect] = {} if _is_gpu(device) else {"int8": "u8s8p"}
        return {**super().dialects(device), **int8}

    def prepare(self, module: torch.fx.GraphModule, example: torch.Tensor) -> tuple[Call, tuple[Executed, ...]]:
        return compile_module(module, example)


def _is_gpu(device: str) -> bool:
    return device.lower().startswith("cuda:")


def _gpus() -> tuple[runtime.Gpu, ...]:
    """Return the GPUs; none if PyTorch was built without CUDA, or if there is no driver."""
    if not _built_with_cuda():
        return ()
    try:
        return tuple(runtime.gpu(index) for index in range(runtime.count()))
    except BackendError:
        return ()


def _built_with_cuda() -> bool:
    """Return whether PyTorch was built with CUDA, without importing it."""
    torch = metadata.distribution("torch")
    return any(Path(str(torch.locate_file(f"torch/lib/{name}"))).exists() for name in _CUDA_LIBRARIES)


def _load(artifact: Artifact) -> torch.fx.GraphModule:
    """Return the artifact's network, on the CPU. Raises `BackendError`."""
    import onnx

    from mbbench.graphs.fx import to_module

    try:
        return to_module(onnx.load(artifact.path), unsigned=True)
    except Exception as error:  # a damaged file can raise any exception in the parser
        raise BackendError(
            f"PyTorch cannot read {artifact.path}: {first_line(error)}", "export the model again"
        ) from error


def _start_gpu(index: int) -> tuple[torch.device, dict[str, str]]:
    """Start CUDA on a GPU, switch TF32 off, and return the GPU and what is in effect. Raises `BackendError`."""
    import torch

    device = torch.device("cuda", index)
    try:
        torch.cuda.set_device(device)
    except RuntimeError as error:  # the driver is too old, for example
        raise BackendError(f"PyTorch cannot use {device}: {first_line(error)}", "update NVIDIA's driver") from error
    # TF32 keeps 10 bits of the mantissa, and fp32 must be fp32. By default PyTorch uses it for convolutions.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.benchmark = True  # takes the fastest kernel of each shape
    tf32 = torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32
    facts = {
        "tf32": "on" if tf32 else "off",
        "device": runtime.gpu(index).description,
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),  # type: ignore[no-untyped-call]
    }
    return device, facts
