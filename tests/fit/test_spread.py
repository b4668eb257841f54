"""Networks spread over a grid."""

from mbbench.fit.spread import corners, spread
from mbbench.spec import ModelSpec

GRID = [ModelSpec(alpha=alpha, resolution=side) for alpha in (0.25, 0.5, 1.0) for side in (64, 128, 256)]


def places(models: list[ModelSpec]) -> list[tuple[float, int]]:
    return [(model.alpha, model.resolution) for model in models]


def test_corners_come_first_and_then_what_is_farthest_from_all() -> None:
    assert places(spread(GRID, 5)) == [(0.25, 64), (0.25, 256), (1.0, 64), (1.0, 256), (0.5, 128)]
    assert len(set(spread(GRID, 7))) == 7


def test_a_grid_without_enough_networks_is_returned_whole() -> None:
    assert sorted(places(spread(GRID, 20))) == sorted(places(GRID))
    assert places(spread(GRID[:1], 3)) == [(0.25, 64)]


def test_a_line_has_two_corners() -> None:
    assert places(corners(GRID[:3])) == [(0.25, 64), (0.25, 256)]
