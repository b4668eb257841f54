"""Checkpoints of torchvision in the command line's notation: number of classes, auxiliary heads, logits."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from mbbench import weights
from mbbench.spec import ModelSpec
from mbbench.weights.recipe import Recipe


def torchvision_models() -> Any:
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name in ("nms", "qnms"):  # torchvision's wheel expects these operators, which only a CUDA build defines
        library.define(f"{name}(Tensor boxes, Tensor scores, float threshold) -> Tensor")  # type: ignore[no-untyped-call]
    from torchvision import models

    return models


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is None, reason="torchvision is not installed")
@pytest.mark.parametrize("family", ["mobilenet_v2", "squeezenet1_0", "squeezenet1_1", "alexnet", "inception_v3"])
@pytest.mark.parametrize("prefix", ["torchvision:", ""])
def test_a_torchvision_checkpoint_gives_its_logits(tmp_path: Path, family: str, prefix: str) -> None:
    options = {"init_weights": False} if family == "inception_v3" else {}
    oracle = getattr(torchvision_models(), family)(weights=None, num_classes=5, **options).eval()
    torch.save(oracle.state_dict(), tmp_path / "x.pth")
    spec = ModelSpec(family, resolution=96)
    resolved = weights.resolve(
        f"{prefix}{tmp_path}/x.pth", spec, lambda: pytest.fail("training data was requested"), Recipe()
    )
    assert resolved.spec == ModelSpec(family, resolution=96, classes=5)
    images = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        expected = oracle(images)
        torch.testing.assert_close(resolved.build()(images), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
