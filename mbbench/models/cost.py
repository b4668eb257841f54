"""What a network costs on paper: Mult-Adds, parameters, weight bytes and the activation peak, by layer and layer type.

Mult-Adds are counted as the MobileNet paper counts them (Tables 2 and 4 to 9): of convolutions and fully connected
layers, one multiplication with its addition being one. `weights` are what the paper calls parameters: kernels alone
(its 1.32 M in Table 9 and the shares of Table 2 come out only so). `parameters` adds biases and batch norm's scale and
shift, which belong to their convolution: what a checkpoint holds. Batch 1, fp32.
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
    name: str
    type: str  # the paper's: Conv 1x1, Conv DW 3x3, Conv 3x3, Fully connected
    output_shape: tuple[int, ...]  # without the batch
    mult_adds: int
    weights: int
    parameters: int
    inputs: int  # elements of the activation it reads, without the batch


@dataclass(frozen=True, slots=True)
class TypeShare:
    """One row of the paper's Table 2; shares are 0 to 1."""

    type: str
    mult_adds: int
    mult_adds_share: float
    weights: int
    weights_share: float


@dataclass(frozen=True, slots=True)
class Cost:
    layers: tuple[Layer, ...]
    activation_peak_bytes: int

    @property
    def mult_adds(self) -> int:
        return sum(layer.mult_adds for layer in self.layers)

    @property
    def weights(self) -> int:
        return sum(layer.weights for layer in self.layers)

    @property
    def parameters(self) -> int:
        return sum(layer.parameters for layer in self.layers)

    @property
    def weight_bytes(self) -> int:
        return self.parameters * _FP32_BYTES

    @property
    def info(self) -> CostInfo:
        return CostInfo(
            mult_adds=self.mult_adds,
            parameters=self.parameters,
            weight_bytes=self.weight_bytes,
            activation_peak_bytes=self.activation_peak_bytes,
        )

    def by_type(self) -> tuple[TypeShare, ...]:
        """Most Mult-Adds first."""
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
    """Count the network that `spec` describes, without its weights."""
    import torch

    from mbbench.models import build

    with torch.device("meta"):
        module = build(spec)
    return count(module, spec.resolution)


def count(module: nn.Module, resolution: int) -> Cost:
    """Count any module of convolutions and fully connected layers on (1, 3, R, R); it is run on shapes alone."""
    import torch
    from torch import nn

    module = copy.deepcopy(module).to("meta")
    shapes: dict[str, tuple[int, tuple[int, ...]]] = {}

    def note(name: str) -> Any:
        def hook(_module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
            shapes[name] = inputs[0].shape[1:].numel(), tuple(output.shape[1:])

        return hook

    counted = {name: layer for name, layer in module.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)}
    handles = [layer.register_forward_hook(note(name)) for name, layer in counted.items()]
    try:
        peak = _activation_peak(module, torch.empty(1, 3, resolution, resolution, device="meta"))
    finally:
        for handle in handles:
            handle.remove()
    return Cost(tuple(_layer(module, name, layer, *shapes[name]) for name, layer in counted.items()), peak)


def _layer(module: nn.Module, name: str, layer: nn.Conv2d | nn.Linear, inputs: int, shape: tuple[int, ...]) -> Layer:
    from torch import nn

    weights = layer.weight.numel()
    parameters = sum(p.numel() for p in layer.parameters())
    parent = module.get_submodule(name.rpartition(".")[0])
    batch_norm = getattr(parent, "bn", None)
    if isinstance(layer, nn.Linear):
        return Layer(name, "Fully connected", shape, weights, weights, parameters, inputs)
    if isinstance(batch_norm, nn.BatchNorm2d):
        parameters += sum(p.numel() for p in batch_norm.parameters())
    kernel = "x".join(map(str, layer.kernel_size))
    kind = f"Conv DW {kernel}" if layer.groups == layer.in_channels > 1 else f"Conv {kernel}"
    channels, height, width = shape
    taps = layer.kernel_size[0] * layer.kernel_size[1] * layer.in_channels // layer.groups
    return Layer(name, kind, shape, height * width * channels * taps, weights, parameters, inputs)


def _activation_peak(module: nn.Module, images: Any) -> int:
    """Bytes of the activations alive at once, at the worst moment: an operator's inputs and outputs and what waits.

    A tensor lives from the operator that makes it to the last that reads it; the input image counts, weights do not,
    batch norm is taken as folded into its convolution, and ReLU works in place. That is the least any runtime needs
    that executes operator by operator without tiling.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    from mbbench.models import fold_batch_norm

    # The size of each storage and the operators that touch it. Keeping the storages keeps their ids from being reused.
    touched: dict[int, list[int]] = {}
    storages: dict[int, torch.UntypedStorage] = {}
    step = 0

    def touch(value: Any) -> None:
        if (
            isinstance(value, torch.Tensor)
            and not isinstance(value, torch.nn.Parameter)
            and value.device.type == "meta"
        ):
            storage = value.untyped_storage()
            if storage._cdata not in constants:
                storages[storage._cdata] = storage
                touched.setdefault(storage._cdata, []).append(step)

    class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal step
            result = func(*args, **(kwargs or {}))
            for value in torch.utils._pytree.tree_leaves((args, kwargs, result)):
                touch(value)
            step += 1
            return result

    folded = fold_batch_norm(module)
    constants = {t.untyped_storage()._cdata for t in (*folded.parameters(), *folded.buffers())}
    with torch.no_grad(), Recorder():  # type: ignore[no-untyped-call]
        folded(images)
    alive = [0] * step
    for key, steps in touched.items():
        for moment in range(min(steps), max(steps) + 1):
            alive[moment] += storages[key].nbytes()
    return max(alive)
