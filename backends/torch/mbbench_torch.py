"""PyTorch on the CPU as two mbbench backends: `torch` (torch.compile) and `torch-eager`.

`torch` compiles because that is the faster of the two wherever it was measured (benchmarks/torch_modes.py); both run
channels-last. Batch norm is folded in both, as anyone would who deploys.
"""

from __future__ import annotations

import os
import shutil
from abc import abstractmethod
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import TYPE_CHECKING, Any, ClassVar

from mbbench.backend import Artifact, Backend, Format, Session, Stage, pick_device
from mbbench.errors import BackendError, UsageError
from mbbench.machine import fingerprint
from mbbench.spec import Precision

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray


class _TorchBackend(Backend):
    formats: ClassVar[tuple[Format, ...]] = ("safetensors",)
    mode: ClassVar[str]

    @abstractmethod
    def prepare(self, module: torch.nn.Module, example: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        """What `Session.run` calls."""

    def versions(self) -> Mapping[str, str]:
        try:
            return {"torch": metadata.version("torch")}
        except metadata.PackageNotFoundError:
            raise BackendError("PyTorch is not installed", "run `pip install torch`") from None

    def devices(self) -> Mapping[str, str]:
        self.versions()
        return {"cpu": fingerprint().cpu}

    def precisions(self, device: str) -> frozenset[Precision]:
        return frozenset({"fp32"})

    def open(self, artifact: Artifact, device: str, *, threads: int, stage: Callable[[Stage], None]) -> Session:
        stage("import")
        import torch

        from mbbench.models import build, fold_batch_norm, load_parameters
        from mbbench.weights import checkpoint

        pick_device(device, ("cpu",))
        torch.set_num_threads(threads)
        stage("load")
        module = fold_batch_norm(build(artifact.spec))
        try:
            load_parameters(module, checkpoint.load(artifact.path), str(artifact.path))
        except UsageError as error:
            raise BackendError(error.cause, "export the model again") from error
        stage("compile")
        module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        call = self.prepare(module, torch.zeros(artifact.input_shape))
        return _TorchSession(
            call,
            {
                "precision": str(next(module.parameters()).dtype).removeprefix("torch."),
                "threads": str(torch.get_num_threads()),
                "mode": self.mode,
                "layout": "channels-last",
            },
        )


class EagerBackend(_TorchBackend):
    mode = "eager"

    def prepare(self, module: torch.nn.Module, example: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        return _channels_last(module)


class CompiledBackend(_TorchBackend):
    mode = "compile"

    def devices(self) -> Mapping[str, str]:
        compiler = os.environ.get("CXX", "g++")
        if shutil.which(compiler) is None:
            raise BackendError(
                f"torch.compile needs a C++ compiler and {compiler} is not there",
                "install one (`apt install g++`), or use --backend torch-eager",
            )
        return super().devices()

    def prepare(self, module: torch.nn.Module, example: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        import torch
        from torch._inductor import config

        torch.compiler.reset()
        config.freezing = True  # lets Inductor lay the weights out for oneDNN
        compiled = torch.compile(_channels_last(module), dynamic=False)
        try:
            with torch.inference_mode():
                compiled(example)
        except Exception as error:  # whatever a pass, the C++ compiler or the loader raises
            raise BackendError(
                f"torch.compile failed: {str(error).strip().splitlines()[0]}", "use --backend torch-eager"
            ) from error
        return compiled


class _TorchSession(Session):
    def __init__(self, call: Callable[[torch.Tensor], torch.Tensor], facts: Mapping[str, str]) -> None:
        import torch

        self._call, self._inference_mode, self._from_numpy = call, torch.inference_mode, torch.from_numpy
        self.facts = facts

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        with self._inference_mode():
            logits: NDArray[np.float32] = self._call(self._from_numpy(images)).numpy()
        return logits

    def close(self) -> None:
        del self._call


def _channels_last(module: torch.nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    import torch

    def call(images: torch.Tensor) -> Any:
        return module(images.contiguous(memory_format=torch.channels_last))

    return call
