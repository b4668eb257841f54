"""Joint rounding of a layer's weights, so that their rounding errors cancel on the inputs that the layer receives."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

MAX_FAN_IN = 2048  # weights per output; above this the covariance takes longer than joint rounding is worth
_SAMPLES = 20_000  # positions that the covariance is computed from, approximately
_DAMPING = 0.01  # of the mean variance


def input_covariance(layer: nn.Conv2d | nn.Linear, x: Tensor) -> Tensor:
    """Return the covariance (G, K, K) of the K inputs of one output, for each of the layer's G groups.

    `x` is the layer's input. Means are subtracted: the error that they add to an output is corrected by the bias.
    """
    import math

    from torch import nn
    from torch.nn import functional

    if isinstance(layer, nn.Linear):
        samples = x.T[None]
    else:
        assert not isinstance(layer.padding, str)
        positions = x.shape[0] * (x.shape[2] // layer.stride[0]) * (x.shape[3] // layer.stride[1])
        step = max(math.isqrt(positions // _SAMPLES), 1)
        strides = tuple(stride * step for stride in layer.stride)
        patches = functional.unfold(x, layer.kernel_size, layer.dilation, layer.padding, strides)
        patches = patches.reshape(len(x), layer.groups, -1, patches.shape[-1])
        samples = patches.permute(1, 2, 0, 3).flatten(2)
    samples = samples.double()
    samples = samples - samples.mean(-1, keepdim=True)
    return samples @ samples.mT / samples.shape[-1]


def round_jointly(weight: Tensor, covariance: Tensor, quant_max: int) -> Tensor:
    """Return `weight` (O, ...) as integers from -`quant_max` to `quant_max` times a scale per output channel.

    GPTQ (Frantar et al. 2022, arXiv 2210.17323): weights are rounded one after another, those with the most varying
    input first, and the weights not yet rounded compensate for the error that each rounding adds to the output.
    `covariance` is that of `input_covariance`. A channel's largest weight stays the largest integer, so that a scale
    computed from the rounded weights gives the same integers.
    """
    import torch

    groups, count, _ = covariance.shape
    rows = weight.double().reshape(groups, -1, count)
    peaks = rows.abs().amax(-1, keepdim=True)
    scale = torch.where(peaks > 0, peaks / quant_max, torch.ones_like(peaks))
    variances = covariance.diagonal(dim1=1, dim2=2)
    damped = covariance + torch.diag_embed((_DAMPING * variances.mean(1, keepdim=True) + 1e-9).expand(-1, count))
    order = variances.argsort(dim=1, descending=True)
    by_row, by_column = order[:, :, None].expand_as(damped), order[:, None, :]
    damped = damped.gather(1, by_row).gather(2, by_column.expand_as(damped))
    columns = by_column.expand_as(rows)
    remaining = rows.gather(2, columns)
    extremes = torch.where(remaining.abs() == peaks, remaining.sign() * quant_max, torch.nan)
    factor = torch.linalg.cholesky(torch.linalg.inv(damped), upper=True)
    rounded = torch.empty_like(remaining)
    for index in range(count):
        column = remaining[:, :, index : index + 1]
        extreme = extremes[:, :, index : index + 1]
        integers = torch.where(extreme.isnan(), torch.round(column / scale).clamp(-quant_max, quant_max), extreme)
        rounded[:, :, index : index + 1] = integers * scale
        error = (column - integers * scale) / factor[:, index : index + 1, index : index + 1]
        remaining[:, :, index:] -= error * factor[:, index : index + 1, index:]
    return torch.empty_like(rows).scatter(2, columns, rounded).reshape(weight.shape).to(weight.dtype)
