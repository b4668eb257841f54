"""Networks of torchvision and timm, with the CPU build of torch, which lacks operators that torchvision expects."""

import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from mbbench import plan
from mbbench.errors import UsageError
from mbbench.models import build, files, zoo
from mbbench.profile import Profile
from mbbench.spec import Preprocessing
from mbbench.weights import checkpoint

pytestmark = pytest.mark.skipif(
    find_spec("torchvision") is None or find_spec("timm") is None, reason="torchvision or timm is not installed"
)


def read(path: Path) -> dict[str, Any]:
    return checkpoint.read(path).tensors


@pytest.fixture(scope="module", autouse=True)
def operators() -> Iterator[None]:
    """Define the operators that only a build with CUDA defines; nothing calls them."""
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor boxes, Tensor scores, float threshold) -> Tensor")  # type: ignore[no-untyped-call]
    yield


def test_a_network_of_torchvision_has_its_logits_and_its_preprocessing(tmp_path: Path) -> None:
    from torchvision import models

    torch.manual_seed(0)
    expected = models.shufflenet_v2_x0_5(weights=None).eval()
    torch.save(expected.state_dict(), tmp_path / "mine.pth")
    spec = zoo.spec_of("torchvision:shufflenet_v2_x0_5", str(tmp_path / "mine.pth"), 64, read)
    assert (spec.label, spec.classes) == ("torchvision:shufflenet_v2_x0_5-64", 1000)
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(build(spec)(images), expected(images), rtol=1e-4, atol=1e-4)
    imagenet = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), crop=224 / 256)
    assert files.preprocessing_of(spec) == imagenet
    assert zoo.spec_of("torchvision:shufflenet_v2_x0_5", str(tmp_path / "mine.pth"), 64, read) == spec


def test_timms_configuration_says_size_crop_and_normalization() -> None:
    spec = zoo.spec_of("timm:tf_efficientnet_lite0", "random", None, read)
    assert (spec.resolution, spec.classes) == (224, 1000)
    assert files.preprocessing_of(spec) == Preprocessing(crop=0.875, interpolation="bicubic")


def test_a_plan_reads_the_network_with_the_profiles_weights() -> None:
    run = plan.plan(Profile(model=("torchvision:shufflenet_v2_x0_5",), res=(64,), weights="random"))
    assert [(cell.model.label, cell.weights, cell.role) for cell in run.cells] == [
        ("torchvision:shufflenet_v2_x0_5-64", "random", "subject")
    ]


@pytest.mark.parametrize(
    ("name", "weights", "error"),
    [
        ("timm:resnet18", None, "timm:resnet18 has no default weights; give --weights FILE, imagenet, or random"),
        (
            "timm:efficientnet_lite",
            "random",
            "timm has no network 'efficientnet_lite'; choose one such as efficientnet_lite",
        ),
        ("torchvision:resnet", "random", "torchvision has no classifier 'resnet'; choose one such as resnet"),
    ],
)
def test_a_wrong_name_or_missing_weights_is_one_line(name: str, weights: str | None, error: str) -> None:
    with pytest.raises(UsageError) as caught:
        zoo.spec_of(name, weights, None, read)
    assert str(caught.value).startswith(error)


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(5, 4)}, tmp_path / "other.pth")
    with pytest.raises(UsageError, match=r"other.pth does not fit the network \(Error\(s\) in loading state_dict"):
        zoo.spec_of("torchvision:shufflenet_v2_x0_5", str(tmp_path / "other.pth"), None, read)


def test_a_library_that_cannot_be_imported_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "timm.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    code = "from mbbench.models import zoo; zoo.spec_of('timm:resnet18', 'random', None, dict)"
    child = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert child.stderr.splitlines()[-1] == (
        "mbbench.errors.UsageError: timm cannot be imported (operator torchvision::nms does not exist);"
        " run `pip install mbbench[zoo]`, for the installed PyTorch"
    )
