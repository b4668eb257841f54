"""The cost of a PyTorch module, counted while it runs on the meta device: the test oracle of `mbbench.models`."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from mbbench.models import batch_norms, fold_batch_norm
from mbbench.models.cost import Cost, Layer


def count(module: nn.Module, resolution: int) -> Cost:
    """Return the cost of `module` for an input of (1, 3, R, R).

    A copy of `module` runs on torch's meta device, which computes shapes only; `module` itself is not changed.
    """
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
            # Maximum pooling also returns the indices of the maxima, which only training needs.
            values = result[0] if func is torch.ops.aten.max_pool2d_with_indices.default else result
            for value in torch.utils._pytree.tree_leaves((args, kwargs, values)):
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
