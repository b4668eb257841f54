import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional

from mbbench.compress import fake
from mbbench.compress.rounding import input_covariance, round_jointly


def strong_covariance(groups: int, count: int) -> torch.Tensor:
    """Return the covariance (groups, count, count) of strongly dependent inputs."""
    generator = torch.Generator().manual_seed(0)
    samples = torch.randn(groups, count, 200, generator=generator, dtype=torch.float64).cumsum(1)
    return samples @ samples.mT / 200


def error(rows: torch.Tensor, rounded: torch.Tensor, covariance: torch.Tensor) -> torch.Tensor:
    """Return the variance (G, O) that rounding adds to the output of each row of weights `rows` (G, O, K)."""
    difference = (rounded - rows).double()
    return (difference @ covariance * difference).sum(-1)


@pytest.mark.parametrize("quant_max", [7, 64, 127])
def test_weights_become_integers_and_the_largest_weight_is_unchanged(quant_max: int) -> None:
    weight = torch.randn(6, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    weight[5] = 0
    rounded = round_jointly(weight, strong_covariance(1, 12), quant_max)
    scale = weight.abs().amax((1, 2, 3)) / quant_max
    integers = rounded[:5] / scale[:5, None, None, None]
    torch.testing.assert_close(integers, integers.round(), rtol=0, atol=1e-4)
    torch.testing.assert_close(rounded.abs().amax((1, 2, 3)), weight.abs().amax((1, 2, 3)))
    torch.testing.assert_close(fake.weights(rounded, quant_max), rounded)
    assert not rounded[5].any()


def test_the_error_is_near_the_minimum() -> None:
    weight = torch.randn(64, 1, 4, 1, generator=torch.Generator().manual_seed(2))
    covariance = strong_covariance(64, 4)
    quant_max = 7
    rows = weight.reshape(64, 1, 4)
    joint = error(rows, round_jointly(weight, covariance, quant_max).reshape(64, 1, 4), covariance)
    nearest = error(rows, fake.weights(weight, quant_max).reshape(64, 1, 4), covariance)
    scale = rows.abs().amax(-1, keepdim=True) / quant_max
    moves = torch.tensor(list(itertools.product((-1, 0, 1), repeat=4)), dtype=torch.float32)
    fixed = rows.abs() == rows.abs().amax(-1, keepdim=True)
    candidates = [((rows / scale).round() + move * ~fixed) * scale for move in moves]
    minimum = torch.stack([error(rows, candidate, covariance) for candidate in candidates]).amin(0)
    assert joint.sum() < 0.5 * nearest.sum()
    assert joint.sum() < 1.5 * minimum.sum()


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(4, 6, 3, stride=2, padding=1), (2, 4, 8, 8)),
        (nn.Conv2d(4, 4, 3, groups=4), (2, 4, 8, 8)),
        (nn.Conv2d(4, 6, 1), (2, 4, 5, 5)),
        (nn.Linear(5, 3), (7, 5)),
    ],
)
def test_the_covariance_gives_the_variance_of_every_output(
    layer: nn.Conv2d | nn.Linear, shape: tuple[int, ...]
) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(3)) + 5
    covariance = input_covariance(layer, x)
    groups, count, _ = covariance.shape
    rows = layer.weight.detach().reshape(groups, -1, count)
    with torch.no_grad():
        outputs = layer(x) if isinstance(layer, nn.Linear) else functional.conv2d(
            x, layer.weight, None, layer.stride, layer.padding, groups=layer.groups
        ).transpose(0, 1).flatten(1).T  # fmt: skip
    torch.testing.assert_close(
        error(rows, torch.zeros_like(rows), covariance).flatten(),
        outputs.double().var(0, correction=0),
        rtol=1e-5,
        atol=0,
    )
