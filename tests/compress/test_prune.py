from dataclasses import replace

import numpy as np
import pytest
import torch

from mbbench.compress.prune import choose, importance, prune, pruned_spec
from mbbench.errors import UsageError
from mbbench.models import build, randomize
from mbbench.models.cost import cost_of
from mbbench.models.mobilenet_v1 import table_widths
from mbbench.spec import ModelSpec

SPEC = ModelSpec(alpha=0.5, resolution=64, classes=10)
WIDTHS = table_widths(SPEC)


def scores(seed: int = 0) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.uniform(0.5, 1.5, width) for width in WIDTHS]


@pytest.mark.parametrize("share", [0.75, 0.5, 0.25])
def test_the_most_channels_in_whole_chunks_that_fit_the_share_are_kept(share: float) -> None:
    layers = cost_of(SPEC).layers
    channels = choose(scores(), layers, share)
    total = sum(layer.mult_adds for layer in layers)
    remaining = cost_of(pruned_spec(SPEC, channels)).mult_adds
    assert share - 0.04 < remaining / total <= share
    assert all(len(indices) % 8 == 0 and len(indices) >= 8 for indices in channels)
    assert all((np.diff(indices) > 0).all() for indices in channels)


def test_the_least_important_channels_are_removed() -> None:
    importances = scores()
    for values in importances:
        values[: len(values) // 2] += 100
    for values, indices in zip(importances, choose(importances, cost_of(SPEC).layers, 0.6), strict=True):
        assert set(range(len(values) // 2)) <= set(indices.tolist())


def test_too_small_a_share_is_refused() -> None:
    with pytest.raises(UsageError, match="even 8 channels in every layer exceed 1% of the Mult-Adds; lower --prune"):
        choose(scores(), cost_of(SPEC).layers, 0.01)


def test_removing_channels_that_are_zero_changes_no_logit() -> None:
    module = build(SPEC)
    randomize(module, seed=0)
    channels = [np.arange(len(values) // 2) for values in scores()]
    state = module.state_dict()
    blocks = [("stem", channels[0]), *((f"blocks.{i}.1", indices) for i, indices in enumerate(channels[1:]))]
    for name, indices in blocks:
        state[f"{name}.bn.weight"][len(indices) :] = 0
        state[f"{name}.bn.bias"][len(indices) :] = 0
    spec = pruned_spec(SPEC, channels)
    smaller = build(spec)
    smaller.load_state_dict(prune(state, channels))
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(smaller(images), module(images))
    assert spec.widths == tuple(width // 2 for width in WIDTHS)
    assert spec.label == "0.5 MobileNet-64 pruned"


def test_a_channel_that_nothing_reads_has_no_importance() -> None:
    module = build(replace(SPEC, resolution=32))
    randomize(module, seed=0)
    module.get_parameter("classifier.weight").data[:, 3] = 0
    importances = importance(module, torch.rand(8, 3, 32, 32), torch.arange(8))
    assert [len(values) for values in importances] == list(WIDTHS)
    assert importances[-1][3] == 0
    assert np.median(importances[-1]) > 0


def test_widths_of_another_depth_are_refused() -> None:
    with pytest.raises(UsageError, match="the number of widths must be 14: 3"):
        build(ModelSpec(widths=(8, 8, 8)))
