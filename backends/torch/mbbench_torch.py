"""PyTorch on the CPU as two mbbench backends: `torch` (torch.compile) and `torch-eager`.

`torch` compiles because that was faster in all measurements (benchmarks/torch_modes.py). Both backends run
channels-last, with batch norm folded as it would be in deployment.
"""

from __future__ import annotations

import os
import re
import shutil
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from statistics import median
from types import FunctionType
from typing import TYPE_CHECKING, Any, ClassVar

import mbbench_torch_quantized as quantized

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
from mbbench.errors import BackendError, UsageError
from mbbench.machine import fingerprint
from mbbench.spec import Precision

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

Call = Callable[["torch.Tensor"], "torch.Tensor"]

# A precision is native if the CPU has any of these extensions; otherwise PyTorch converts to fp32 and back.
_EXTENSIONS: dict[Precision, set[str]] = {
    "bf16": {"avx512_bf16", "amx_bf16", "bf16"},
    "fp16": {"avx512_fp16", "amx_fp16", "asimdhp"},
    "int8": {"avx512_vnni", "avx_vnni", "amx_int8"},
}
_WEIGHTED = re.compile(
    r"(q(conv|linear)_pointwise|_?convolution(_pointwise)?|conv2d|_?(mkl_)?linear(_pointwise)?|addmm|mm)"
)
_CALL = "mbbench call"  # labels a call in the profiler's events
_SESSIONS = count()


class _TorchBackend(Backend):
    formats: ClassVar[tuple[Format, ...]] = ("safetensors",)
    mode: ClassVar[str]

    @abstractmethod
    def prepare(self, module: torch.nn.Module, example: torch.Tensor) -> tuple[Call, tuple[Executed, ...]]:
        """Return the function that `Session.run` calls, and the nodes that it executes."""

    def versions(self) -> Mapping[str, str]:
        return {"torch": installed_version("torch")}

    def devices(self) -> Mapping[str, str]:
        self.versions()
        return {"cpu": fingerprint().cpu}

    def precisions(self, device: str) -> frozenset[Precision]:
        isa = set(fingerprint().isa)
        native = {precision for precision, extensions in _EXTENSIONS.items() if isa & extensions}
        return frozenset({"fp32", *(native & self.dialects(device).keys())})

    def dialects(self, device: str) -> Mapping[Precision, Dialect]:
        return {"fp32": "fp32", "bf16": "fp32", "fp16": "fp32"}

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
            state = checkpoint.read_state(artifact.path)
            if artifact.dialect == "u8s8":
                quantized.load(module, state)
            else:
                load_parameters(module, state, str(artifact.path))
        except (UsageError, KeyError) as error:
            cause = error.cause if isinstance(error, UsageError) else f"{artifact.path} has no tensor {error}"
            raise BackendError(cause, "export the model again") from error
        stage("compile")
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(artifact.precision, torch.float32)
        if dtype != torch.float32:
            module = module.to(dtype)
        module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        # An example made outside is not an inference tensor, and the first call would compile again.
        with torch.inference_mode():
            call, executed = self.prepare(module, torch.zeros(artifact.input_shape, dtype=dtype))
        return _TorchSession(
            call,
            {
                "precision": "int8" if artifact.dialect == "u8s8" else str(dtype).removeprefix("torch."),
                "threads": str(torch.get_num_threads()),
                "mode": self.mode,
                "layout": "channels-last",
            },
            dtype,
            executed,
        )


class EagerBackend(_TorchBackend):
    """PyTorch without compilation: `torch-eager`."""

    mode = "eager"

    def prepare(self, module: torch.nn.Module, example: torch.Tensor) -> tuple[Call, tuple[Executed, ...]]:
        executed = [
            Executed((name,), type(layer).__name__, _precision_name(layer.weight.dtype))
            for name, layer in _layers(module)
        ]
        return _channels_last(module), tuple(executed)


class CompiledBackend(_TorchBackend):
    """PyTorch with torch.compile: `torch`."""

    mode = "compile"

    def devices(self) -> Mapping[str, str]:
        compiler = os.environ.get("CXX", "g++")
        if shutil.which(compiler) is None:
            raise BackendError(
                f"torch.compile needs a C++ compiler, and {compiler} is not on the PATH",
                "install one (`apt install g++`) or use --backend torch-eager",
            )
        return super().devices()

    def dialects(self, device: str) -> Mapping[Precision, Dialect]:
        return {**super().dialects(device), "int8": "u8s8"}

    def prepare(self, module: torch.nn.Module, example: torch.Tensor) -> tuple[Call, tuple[Executed, ...]]:
        import torch
        from torch._inductor import config

        config.freezing = True  # lets Inductor reorder weights for oneDNN and fuse int8 convolutions
        config.force_disable_caches = True  # Inductor does not run the pass below on a cached graph
        nodes: list[tuple[str, str]] = []
        config.post_grad_custom_pre_pass = lambda graph: nodes.extend(_weighted_nodes(graph))
        compiled = torch.compile(_with_own_code(_channels_last(module)), dynamic=False)
        try:
            compiled(example)
        except Exception as error:  # passes, the C++ compiler and the loader raise many types
            raise BackendError(
                f"torch.compile cannot compile the model: {_first_line(error)}", "use --backend torch-eager"
            ) from error
        config.post_grad_custom_pre_pass = None
        # Inductor drops the layers' names but keeps their order.
        names = [name for name, _ in _layers(module)]
        if len(names) != len(nodes):
            return compiled, ()
        return compiled, tuple(
            Executed((name,), operator, precision) for name, (operator, precision) in zip(names, nodes, strict=True)
        )


class _TorchSession(Session, LayerAudit, LayerProfile):
    def __init__(
        self, call: Call, facts: Mapping[str, str], dtype: torch.dtype, executed: tuple[Executed, ...]
    ) -> None:
        import torch

        self._call, self._inference_mode, self._from_numpy = call, torch.inference_mode, torch.from_numpy
        self._dtype, self._executed = dtype, executed
        self.facts = facts

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        with self._inference_mode():
            logits: NDArray[np.float32] = self._call(self._from_numpy(images).to(self._dtype)).float().numpy()
        return logits

    def executed(self) -> tuple[Executed, ...]:
        return self._executed

    def profile(self, images: NDArray[np.float32], runs: int) -> tuple[NodeTime, ...]:
        from torch.profiler import ProfilerActivity, profile, record_function

        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            for _ in range(runs + 1):
                with record_function(_CALL):
                    self.run(images)
        calls = [event for event in profiler.events() if event.name == _CALL]
        return _node_times(calls[1:], self._executed)

    def close(self) -> None:
        del self._call


def _layers(module: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield the name and the module of each convolution and fully connected layer."""
    from torch import nn

    yield from ((name, layer) for name, layer in module.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear))


def _weighted_nodes(graph: Any) -> Iterator[tuple[str, str]]:
    """Yield the operator and precision of each convolution and matrix product in Inductor's graph.

    The names of oneDNN's quantized operators start with q.
    """
    for node in graph.nodes:
        operator = str(node.target).split(".")[1:2]
        if node.op != "call_function" or not operator or not _WEIGHTED.fullmatch(operator[0]):
            continue
        name = operator[0]
        yield name, "int8" if name.startswith("q") else _precision_name(node.meta["val"].dtype)


def _node_times(calls: Sequence[Any], executed: Sequence[Executed]) -> tuple[NodeTime, ...]:
    """Return the median time of each layer, then of each remaining operator, from the profiler's events of `calls`.

    The convolutions and matrix products of a call are matched to `executed` by order. Return an empty tuple if their
    numbers differ.
    """
    layers: list[list[float]] = []
    others: list[dict[str, float]] = []
    for call in calls:
        layers.append([])
        others.append({})
        for event in _by_start(call.cpu_children):
            weighted_us = [weighted.time_range.elapsed_us() for weighted in _outermost_weighted(event)]
            rest_us = event.time_range.elapsed_us() - sum(weighted_us)
            layers[-1] += weighted_us
            others[-1][event.name] = others[-1].get(event.name, 0) + rest_us
    if any(len(times) != len(executed) for times in layers):
        return ()
    medians = {name: median(times.get(name, 0) for times in others) for name in others[0]}
    return (
        *(
            NodeTime(node.names, node.type, node.precision, median(times) / 1e3)
            for node, times in zip(executed, zip(*layers, strict=True), strict=True)
        ),
        *(NodeTime((), name, "unknown", time / 1e3) for name, time in medians.items() if time > 0),
    )


def _outermost_weighted(event: Any) -> Iterator[Any]:
    """Yield the convolutions and matrix products within `event`, without those nested in another."""
    if _WEIGHTED.fullmatch(event.name.rpartition("::")[2]):
        yield event
        return
    for child in _by_start(event.cpu_children):
        yield from _outermost_weighted(child)


def _by_start(events: Sequence[Any]) -> list[Any]:
    return sorted(events, key=lambda event: event.time_range.start)


def _precision_name(dtype: torch.dtype) -> str:
    name = str(dtype).removeprefix("torch.")
    return {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}.get(name, name)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _with_own_code(function: Call) -> Call:
    """Return a copy of `function` with a new code object.

    PyTorch caches compiled code per code object and stops compiling at a limit; sessions that share one would slow each
    other down.
    """
    assert isinstance(function, FunctionType)
    code = function.__code__.replace(co_name=f"{function.__name__}_{next(_SESSIONS)}")
    return FunctionType(code, function.__globals__, function.__name__, function.__defaults__, function.__closure__)


def _channels_last(module: torch.nn.Module) -> Call:
    """Return `module` as a function that converts its input to channels-last."""
    import torch

    def call(images: torch.Tensor) -> Any:
        return module(images.contiguous(memory_format=torch.channels_last))

    return call
