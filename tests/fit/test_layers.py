"""The layers that arithmetic gives are those of the built network."""

import pytest

from mbbench.fit.layers import layers
from mbbench.models.cost import cost_of
from mbbench.spec import ModelSpec


@pytest.mark.parametrize(
    ("alpha", "resolution", "classes"), [(1.0, 224, 1000), (0.25, 128, 10), (17 / 32, 200, 10), (1 / 32, 33, 7)]
)
def test_they_are_counted_as_in_the_built_network(alpha: float, resolution: int, classes: int) -> None:
    model = ModelSpec(alpha=alpha, resolution=resolution, classes=classes)
    assert layers(model) == cost_of(model).layers


def test_a_pruned_network_has_its_own_widths() -> None:
    model = ModelSpec(resolution=64, classes=10, widths=(8, 24, *range(30, 96, 6), 40))
    assert layers(model) == cost_of(model).layers
