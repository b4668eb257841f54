"""Structured pruning of MobileNetV1: channels are removed, and a smaller dense network remains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

from mbbench.errors import UsageError
from mbbench.models.cost import Layer
from mbbench.spec import ModelSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

CHUNK = 8  # channels removed at a time: kernels work on multiples of 8
_BATCH = 32


def importance(module: nn.Module, images: Tensor, labels: Tensor) -> list[NDArray[np.float64]]:
    """Return how much the loss would change without each channel: the stem's output channels, then each block's.

    First-order Taylor expansion at batch norm's scale and shift (Molchanov et al. 2019, arXiv 1906.10771, equation 8
    over gates), summed over what is removed together: a block's output channel, and the depthwise kernel that reads it
    in the next block.
    """
    import numpy as np
    import torch
    from torch.nn import functional

    from mbbench.models.modules.mobilenet_v1 import ConvBlock

    module.eval()
    blocks = [block for block in module.modules() if isinstance(block, ConvBlock)]
    scores = [np.zeros(block.conv.out_channels) for block in blocks]
    for start in range(0, len(images), _BATCH):
        module.zero_grad()
        loss = functional.cross_entropy(module(images[start : start + _BATCH]), labels[start : start + _BATCH])
        loss.backward()  # type: ignore[no-untyped-call]
        for score, block in zip(scores, blocks, strict=True):
            bn = block.bn
            assert bn.weight.grad is not None and bn.bias.grad is not None
            score += torch.square(bn.weight * bn.weight.grad + bn.bias * bn.bias.grad).detach().numpy()
    module.zero_grad()
    outputs = [scores[0], *scores[2::2]]
    depthwise = [*scores[1::2], np.zeros_like(outputs[-1])]  # the classifier follows the last block
    return [output + reader for output, reader in zip(outputs, depthwise, strict=True)]


def choose(scores: Sequence[NDArray[np.float64]], layers: Sequence[Layer], share: float) -> list[NDArray[np.int64]]:
    """Return the sorted indices of the channels to keep so that at most `share` (0 to 1) of the Mult-Adds remain.

    `scores` holds the importance of each channel, of the stem and of each block; `layers` the Mult-Adds. Chunks of a
    layer's least important channels are removed one by one, first the chunk that loses least importance per Mult-Add
    saved. Raises `UsageError` if even one chunk in every layer exceeds `share`.
    """
    import numpy as np

    widths = [len(score) for score in scores]
    costs = _Costs(layers, widths)
    order = [np.argsort(score, kind="stable") for score in scores]
    ranked = [score[indices] for score, indices in zip(scores, order, strict=True)]
    removed = [0] * len(widths)
    target = share * costs.total(widths)
    while costs.total(current := [width - cut for width, cut in zip(widths, removed, strict=True)]) > target:
        prices = []
        for index, width in enumerate(current):
            cut = width % CHUNK or CHUNK
            if width - cut < CHUNK:
                continue
            narrower = [w - cut * (layer == index) for layer, w in enumerate(current)]
            loss = ranked[index][removed[index] : removed[index] + cut].sum()
            prices.append((loss / (costs.total(current) - costs.total(narrower)), index, cut))
        if not prices:
            raise UsageError(
                f"even {CHUNK} channels in every layer exceed {share:.0%} of the Mult-Adds", "lower --prune"
            )
        _, index, cut = min(prices)
        removed[index] += cut
    return [np.sort(indices[cut:]) for indices, cut in zip(order, removed, strict=True)]


class _Costs:
    """Mult-Adds as a function of the widths: a layer's are proportional to its input and output channels."""

    def __init__(self, layers: Sequence[Layer], widths: Sequence[int]) -> None:
        counts = [layer.mult_adds for layer in layers]
        self._stem = counts[0] / widths[0]
        self._depthwise = [count / width for count, width in zip(counts[1:-1:2], widths, strict=False)]
        pairs = pairwise(widths)
        self._pointwise = [count / (a * b) for count, (a, b) in zip(counts[2:-1:2], pairs, strict=True)]
        self._classifier = counts[-1] / widths[-1]

    def total(self, widths: Sequence[int]) -> float:
        depthwise = sum(c * width for c, width in zip(self._depthwise, widths, strict=False))
        pairs = pairwise(widths)
        pointwise = sum(c * a * b for c, (a, b) in zip(self._pointwise, pairs, strict=True))
        return self._stem * widths[0] + depthwise + pointwise + self._classifier * widths[-1]


def prune(state: dict[str, Tensor], channels: Sequence[NDArray[np.int64]]) -> dict[str, Tensor]:
    """Return the parameters of the network that keeps `channels` (of `choose`); `pruned_spec` describes it."""
    import torch

    kept = [torch.from_numpy(indices) for indices in channels]
    smaller = {}
    for name, tensor in state.items():
        if tensor.ndim == 0:
            smaller[name] = tensor
            continue
        module, _, parameter = name.rpartition(".")
        if module == "classifier":
            smaller[name] = tensor[:, kept[-1]] if parameter == "weight" else tensor
            continue
        block = -1 if module.startswith("stem.") else int(module.split(".")[1])
        pointwise = block >= 0 and module.split(".")[2] == "1"
        tensor = tensor[kept[block + 1 if block < 0 or pointwise else block]]
        smaller[name] = tensor[:, kept[block]] if pointwise and parameter == "weight" and tensor.ndim == 4 else tensor
    return smaller


def pruned_spec(spec: ModelSpec, channels: Sequence[NDArray[np.int64]]) -> ModelSpec:
    """Return `spec` with the widths of the network that keeps `channels`."""
    return replace(spec, widths=tuple(len(indices) for indices in channels))
