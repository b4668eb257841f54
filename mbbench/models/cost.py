"""Theoretical cost of a network at batch 1 in fp32: Mult-Adds, parameters, weight bytes and the activation peak.

Mult-Adds are counted as in the MobileNet paper (Tables 2 and 4 to 9): only convolutions and fully connected layers
count, and a multiplication with its addition counts as one. `weights` are what the paper calls parameters: kernels only
(the 1.32 M of its Table 9 and the shares of its Table 2 are reproduced only this way). `parameters` are what a
checkpoint holds: `weights`, biases, and the scale and shift of batch norm, which count toward their convolution.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from mbbench.result import CostInfo
from mbbench.spec import ModelSpec

if TYPE_CHECKING:
    from torch import nn

_FP32_BYTES = 4


@dataclass(frozen=True, slots=True)
class Layer:
    """Cost of one convolution or fully connected layer."""

    name: str
    type: str  # as in the paper: Conv 1x1, Conv DW 3x3, Conv 3x3, Fully connected
    output_shape: tuple[int, ...]  # without the batch dimension
    mult_adds: int
    weights: int
    parameters: int
    inputs: int  # number of elements of the input activation, without the batch dimension


@dataclass(frozen=True, slots=True)
class TypeShare:
    """One row of the paper's Table 2. Shares are between 0 and 1."""

    type: str
    mult_adds: int
    mult_adds_share: float
    weights: int
    weights_share: float


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of a network, by layer and in total."""

    layers: tuple[Layer, ...]
    activation_peak_bytes: int
    other_parameters: int = 0  # learned, but of no layer: batch norm that follows no convolution, for example

    @property
    def mult_adds(self) -> int:
        return sum(layer.mult_adds for layer in self.layers)

    @property
    def weights(self) -> int:
        return sum(layer.weights for layer in self.layers)

    @property
    def parameters(self) -> int:
        return sum(layer.parameters for layer in self.layers) + self.other_parameters

    @property
    def weight_bytes(self) -> int:
        return self.parameters * _FP32_BYTES

    @property
    def info(self) -> CostInfo:
        """The totals, as a result records them."""
        return CostInfo(
            mult_adds=self.mult_adds,
            parameters=self.parameters,
            weight_bytes=self.weight_bytes,
            activation_peak_bytes=self.activation_peak_bytes,
        )

    def by_type(self) -> tuple[TypeShare, ...]:
        """Return the Mult-Adds and weights of each layer type, the type with the most Mult-Adds first."""
        totals: dict[str, tuple[int, int]] = {}
        for layer in self.layers:
            mult_adds, weights = totals.get(layer.type, (0, 0))
            totals[layer.type] = (mult_adds + layer.mult_adds, weights + layer.weights)
        rows = [
            TypeShare(name, mult_adds, mult_adds / self.mult_adds, weights, weights / self.weights)
            for name, (mult_adds, weights) in totals.items()
        ]
        return tuple(sorted(rows, key=lambda row: -row.mult_adds))


@cache
def cost_of(spec: ModelSpec) -> Cost:
    """Return the cost of the network that `spec` describes. No memory is allocated for its weights."""
    if spec.is_file:
        from mbbench.models import files

        return files.cost(spec)
    import torch

    from mbbench.models import build

    with torch.device("meta"):
        module = build(spec)
    return count(module, spec.resolution)


def count(module: nn.Module, resolution: int) -> Cost:
    """Return the cost of `module` for an input of (1, 3, R, R).

    A copy of `module` runs on torch's meta device, which computes shapes only; `module` itself is not changed.
    """
    import torch
    from torch import nn

    from mbbench.models import batch_norms

    module = copy.deepcopy(module).to("meta")
    shapes: dict[str, tuple[int, tuple[int, ...]]] = {}

    def record(name: str) -> Any:
        def hook(_module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
            shapes[name] = inputs[0].shape[1:].numel(), tuple(output.shape[1:])

        return hook

    counted = {name: layer for name, layer in module.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)}
    handles = [layer.register_forward_hook(record(name)) for name, layer in counted.items()]
    try:
        peak = _activation_peak(module, torch.empty(1, 3, resolution, resolution, device="meta"))
    finally:
        for handle in handles:
            handle.remove()
    norms = {name: module.get_submodule(norm) for name, norm in batch_norms(module).items()}
    layers = (_layer(name, layer, norms.get(name), *shapes[name]) for name, layer in counted.items())
    return Cost(tuple(layers), peak)


def _layer(
    name: str, layer: nn.Conv2d | nn.Linear, norm: nn.Module | None, inputs: int, shape: tuple[int, ...]
) -> Layer:
    """Return the cost of a layer; its batch norm `norm` counts toward its parameters."""
    from torch import nn

    weights = layer.weight.numel()
    parameters = sum(p.numel() for part in (layer, norm) if part is not None for p in part.parameters())
    if isinstance(layer, nn.Linear):
        return Layer(name, "Fully connected", shape, weights, weights, parameters, inputs)
    kernel = "x".join(map(str, layer.kernel_size))
    kind = f"Conv DW {kernel}" if layer.groups == layer.in_channels > 1 else f"Conv {kernel}"
    channels, height, width = shape
    taps = layer.kernel_size[0] * layer.kernel_size[1] * layer.in_channels // layer.groups
    return Layer(name, kind, shape, height * width * channels * taps, weights, parameters, inputs)


def _activation_peak(module: nn.Module, images: Any) -> int:
    """Return the largest number of bytes of activations that are alive at the same time.

    A tensor is alive from the operator that produces it to the last operator that reads it. The input image counts and
    weights do not. Batch norm is folded into its convolution and ReLU works in place. This is the minimum for a runtime
    that executes one operator at a time without tiling.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    from mbbench.models import fold_batch_norm

    uses: dict[int, list[int]] = {}  # id of a storage -> steps (operators) that read or write it
    storages: dict[int, torch.UntypedStorage] = {}  # holding the storages prevents the reuse of their ids
    step = 0

    def record(value: Any) -> None:
        if (
            isinstance(value, torch.Tensor)
            and not isinstance(value, torch.nn.Parameter)
            and value.device.type == "meta"
        ):
            storage = value.untyped_storage()
            if storage._cdata not in constants:
                storages[storage._cdata] = storage
                uses.setdefault(storage._cdata, []).append(step)

    class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal step
            result = func(*args, **(kwargs or {}))
            for value in torch.utils._pytree.tree_leaves((args, kwargs, result)):
                record(value)
            step += 1
            return result

    folded = fold_batch_norm(module)
    constants = {t.untyped_storage()._cdata for t in (*folded.parameters(), *folded.buffers())}
    with torch.no_grad(), Recorder():  # type: ignore[no-untyped-call]
        folded(images)
    alive = [0] * step  # bytes at each step
    for storage_id, steps in uses.items():
        for i in range(min(steps), max(steps) + 1):
            alive[i] += storages[storage_id].nbytes()
    return max(alive)
