"""torch.compile, without the parts of PyTorch's caches that sessions would share."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from types import FunctionType
from typing import TYPE_CHECKING, Any

from mbbench.backend import Executed
from mbbench.errors import BackendError, first_line
from mbbench_torch import layers

if TYPE_CHECKING:
    import torch

Call = Callable[["torch.Tensor"], "torch.Tensor"]

_SESSIONS = count()


def compile_module(module: torch.fx.GraphModule, example: torch.Tensor) -> tuple[Call, tuple[Executed, ...]]:
    """Return the compiled `module`, ready for inputs like `example`, and its layers as Inductor's graph has them.

    Raises `BackendError` if PyTorch cannot compile it.
    """
    import torch
    from torch._inductor import config

    config.freezing = example.device.type == "cpu"  # lets Inductor reorder weights for oneDNN and fuse int8 layers
    config.force_disable_caches = True  # Inductor does not run the pass below on a cached graph
    nodes: list[tuple[str, str]] = []
    config.post_grad_custom_pre_pass = lambda graph: nodes.extend(layers.of_graph(graph))
    compiled = torch.compile(_with_own_code(channels_last(module)), dynamic=False)
    try:
        compiled(example)
    except Exception as error:  # passes, the C++ compiler and the loader raise many types
        raise BackendError(
            f"torch.compile cannot compile the model: {first_line(error)}", "use --backend torch-eager"
        ) from error
    config.post_grad_custom_pre_pass = None
    # Inductor drops the layers' names but keeps their order.
    names = [name for name, _ in layers.of_module(module)]
    if len(names) != len(nodes):
        return compiled, ()
    return compiled, tuple(
        Executed((name,), operator, precision) for name, (operator, precision) in zip(names, nodes, strict=True)
    )


def channels_last(module: torch.nn.Module) -> Call:
    """Return `module` as a function that converts its input to channels-last."""
    import torch

    def call(images: torch.Tensor) -> Any:
        return module(images.contiguous(memory_format=torch.channels_last))

    return call


def _with_own_code(function: Call) -> Call:
    """Return a copy of `function` with a new code object.

    PyTorch caches compiled code per code object and stops compiling at a limit; sessions that share one would slow each
    other down.
    """
    assert isinstance(function, FunctionType)
    code = function.__code__.replace(co_name=f"{function.__name__}_{next(_SESSIONS)}")
    return FunctionType(code, function.__globals__, function.__name__, function.__defaults__, function.__closure__)
