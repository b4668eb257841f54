"""Weights rounded together instead of one by one: their errors cancel on the inputs that a layer really gets."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

LARGEST_INPUT = 2048  # weights of one output; above, the covariance would take longer than the network is worth
_SAMPLES = 20_000  # positions that the covariance is taken over
_DAMPING = 0.01  # of the mean variance


def covariance(layer: nn.Conv2d | nn.Linear, x: Tensor) -> Tensor:
    """(G, K, K): how the K inputs of one output vary together, for each of the layer's G groups; `x` is its input.

    Without their means: what these add to an output is the bias's to correct.
    """
    import math

    from torch import nn
    from torch.nn import functional

    if isinstance(layer, nn.Linear):
        samples = x.T[None]
    else:
        assert not isinstance(layer.padding, str)
        positions = x.shape[0] * (x.shape[2] // layer.stride[0]) * (x.shape[3] // layer.stride[1])
        apart = max(math.isqrt(positions // _SAMPLES), 1)
        strides = tuple(stride * apart for stride in layer.stride)
        patches = functional.unfold(x, layer.kernel_size, padding=layer.padding, stride=strides)
        patches = patches.reshape(len(x), layer.groups, -1, patches.shape[-1])
        samples = patches.permute(1, 2, 0, 3).flatten(2)
    samples = samples.double()
    samples = samples - samples.mean(-1, keepdim=True)
    return samples @ samples.mT / samples.shape[-1]


def together(weight: Tensor, covariance: Tensor, largest: int) -> Tensor:
    """`weight` (O, ...) as integers up to `largest` times a scale for each output channel.

    GPTQ (Frantar et al. 2022, arXiv 2210.17323): weights are rounded in turn, those with the most varying input first,
    and what rounding one adds to the output is taken off by those that are still to come. The largest weight of a
    channel stays the largest integer, so that whoever takes the scale from it finds these very integers.
    """
    import torch

    groups, count, _ = covariance.shape
    rows = weight.double().reshape(groups, -1, count)
    peaks = rows.abs().amax(-1, keepdim=True)
    scale = torch.where(peaks > 0, peaks / largest, torch.ones_like(peaks))
    variances = covariance.diagonal(dim1=1, dim2=2)
    damped = covariance + torch.diag_embed((_DAMPING * variances.mean(1, keepdim=True) + 1e-9).expand(-1, count))
    order = variances.argsort(dim=1, descending=True)
    by_row, by_column = order[:, :, None].expand_as(damped), order[:, None, :]
    damped = damped.gather(1, by_row).gather(2, by_column.expand_as(damped))
    places = by_column.expand_as(rows)
    left = rows.gather(2, places)
    extremes = torch.where(left.abs() == peaks, left.sign() * largest, torch.nan)
    factor = torch.linalg.cholesky(torch.linalg.inv(damped), upper=True)
    rounded = torch.empty_like(left)
    for place in range(count):
        own = left[:, :, place : place + 1]
        extreme = extremes[:, :, place : place + 1]
        integers = torch.where(extreme.isnan(), torch.round(own / scale).clamp(-largest, largest), extreme)
        rounded[:, :, place : place + 1] = integers * scale
        error = (own - integers * scale) / factor[:, place : place + 1, place : place + 1]
        left[:, :, place:] -= error * factor[:, place : place + 1, place:]
    return torch.empty_like(rows).scatter(2, places, rounded).reshape(weight.shape).to(weight.dtype)
