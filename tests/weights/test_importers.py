"""Other frameworks' checkpoints, held against those frameworks' own logits."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mbbench import weights
from mbbench.errors import UsageError
from mbbench.models import build, fold_batch_norm, randomize
from mbbench.spec import ModelSpec
from mbbench.weights.recipe import Recipe

SHARED = Path(__file__).parents[3] / "shared" / "data"
PUBLISHED = SHARED / "mobilenet_1_0_224_tf.h5"
LOGITS = SHARED / "mobilenet_1_0_224_tf_logits.npz"
SMALL = ModelSpec(alpha=0.25, resolution=32, classes=7)
ALLOWED = 1e-4  # the largest difference of a logit


def torchvision_models() -> Any:
    """torchvision beside the CPU build of torch, where it wants two operators that nobody calls."""
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor boxes, Tensor scores, float threshold) -> Tensor")  # type: ignore[no-untyped-call]
    from torchvision import models

    return models


def resolve(choice: str, spec: ModelSpec) -> weights.Weights:
    return weights.resolve(choice, spec, lambda: pytest.fail("nothing is to be trained"), Recipe())


def logits(found: weights.Weights, images: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return found.build()(images)  # type: ignore[no-any-return]


@pytest.mark.skipif(not PUBLISHED.exists(), reason="the published ImageNet checkpoint is not at hand")
def test_the_published_checkpoint_gives_kerass_own_logits() -> None:
    found = resolve(f"keras:{PUBLISHED}", ModelSpec())
    assert (found.spec.classes, found.spec.padding, found.info.origin) == (1000, "keras", "imported")
    images = np.random.default_rng(7).uniform(-1, 1, (4, 224, 224, 3)).astype(np.float32)
    with np.load(LOGITS) as archive:
        expected = archive["logits"]
    got = logits(found, torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    assert np.abs(got - expected).max() < ALLOWED


KERAS = """
import sys
import keras, numpy as np
from keras.applications import MobileNet
alpha, resolution, folder = float(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
keras.utils.set_random_seed(3)
model = MobileNet((resolution, resolution, 3), alpha=alpha, weights=None, classes=11, classifier_activation=None)
random = np.random.default_rng(1)
for layer in model.layers:
    if layer.name.endswith("_bn"):
        layer.set_weights([random.uniform(0.5, 1.5, value.shape) for value in layer.get_weights()])
images = random.uniform(-1, 1, (2, resolution, resolution, 3)).astype("float32")
np.savez(f"{folder}/logits.npz", images=images, logits=model.predict(images, verbose=0))
import h5py
with h5py.File(f"{folder}/model.h5", "w") as file:
    for layer in model.layers:
        for variable in layer.weights:
            file[f"{layer.name}/{layer.name}/{variable.name}:0"] = variable.numpy()
"""


@pytest.mark.skipif(importlib.util.find_spec("keras") is None, reason="Keras is not installed")
@pytest.mark.parametrize(("alpha", "resolution"), [(0.25, 128), (0.5, 160), (0.75, 192), (0.25, 75)])
def test_other_widths_and_resolutions_give_kerass_logits(alpha: float, resolution: int, tmp_path: Path) -> None:
    command = [sys.executable, "-c", KERAS, str(alpha), str(resolution), str(tmp_path)]
    subprocess.run(command, check=True, env={**os.environ, "KERAS_BACKEND": "torch"}, capture_output=True)
    found = resolve(f"keras:{tmp_path}/model.h5", ModelSpec(alpha=alpha, resolution=resolution))
    with np.load(tmp_path / "logits.npz") as archive:
        images, expected = archive["images"], archive["logits"]
    got = logits(found, torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    assert got.shape == (2, 11)
    assert np.abs(got - expected).max() < ALLOWED * np.abs(expected).max()


def test_an_imported_checkpoint_is_a_checkpoint_of_ours_with_its_padding(tmp_path: Path) -> None:
    path = tmp_path / "keras.h5"
    write_keras(path, SMALL)
    imported = resolve(f"keras:{path}", SMALL)
    again = resolve(str(imported.path), SMALL)
    assert again.spec == imported.spec
    assert again.spec.padding == "keras"
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(logits(again, images), logits(imported, images))
    assert resolve(f"keras:{path}", SMALL).path == imported.path


def write_keras(path: Path, spec: ModelSpec) -> None:
    """The parameters of `build(spec)`, seeded, in the layout of Keras's published files."""
    names = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
    module = build(spec)
    randomize(module, seed=0)
    with h5py.File(path, "w") as file:
        for name, value in module.state_dict().items():
            place, _, parameter = name.rpartition(".")
            array = value.numpy()
            if place == "classifier":
                layer, variable = "conv_preds", "kernel" if parameter == "weight" else "bias"
                array = array.T[None, None] if parameter == "weight" else array
            else:
                block, kind = place.rsplit(".", 1)
                _, *index = block.split(".")
                layer = "conv1" if not index else f"conv_{('dw', 'pw')[int(index[1])]}_{int(index[0]) + 1}"
                if kind == "bn":
                    if parameter == "num_batches_tracked":
                        continue
                    layer, variable = f"{layer}_bn", names[parameter]
                else:
                    depthwise = "_dw_" in layer
                    variable = "depthwise_kernel" if depthwise else "kernel"
                    array = array.transpose(2, 3, 0, 1) if depthwise else array.transpose(2, 3, 1, 0)
            file[f"{layer}/{layer}/{variable}:0"] = array


@pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")
def test_a_checkpoint_of_timm_gives_its_logits(tmp_path: Path) -> None:
    torchvision_models()  # which timm imports
    import timm

    oracle = timm.create_model("mobilenetv1_100", pretrained=False, num_classes=9).eval()
    for name, value in oracle.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.001, 2.0)
    save_file(oracle.state_dict(), tmp_path / "timm.safetensors")
    found = resolve(f"timm:{tmp_path}/timm.safetensors", ModelSpec(resolution=96))
    images = torch.rand(2, 3, 96, 96) * 2 - 1
    with torch.inference_mode():
        expected = oracle(images)
    assert (found.spec.classes, found.spec.padding) == (9, "symmetric")
    assert (logits(found, images) - expected).abs().max() < ALLOWED * expected.abs().max()


def test_vgg16_with_batch_norm_is_folded_into_vgg16(tmp_path: Path) -> None:
    models = torchvision_models()

    torch.manual_seed(0)
    oracle = models.vgg16_bn(num_classes=5).eval()
    for name, value in oracle.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2.0)
    torch.save(oracle.state_dict(), tmp_path / "vgg16_bn.pth")
    found = resolve(f"torchvision:{tmp_path}/vgg16_bn.pth", ModelSpec(family="vgg16", resolution=64))
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        expected = oracle(images)
    assert found.spec.classes == 5
    assert (logits(found, images) - expected).abs().max() < ALLOWED * expected.abs().max()


def test_googlenet_leaves_its_auxiliary_heads_out(tmp_path: Path) -> None:
    models = torchvision_models()
    torch.manual_seed(0)
    oracle = models.googlenet(num_classes=5, weights=None, init_weights=True).eval()
    torch.save(oracle.state_dict(), tmp_path / "googlenet.pth")
    found = resolve(f"torchvision:{tmp_path}/googlenet.pth", ModelSpec(family="googlenet", resolution=64))
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.inference_mode():
        expected = oracle(images)
    assert found.spec.classes == 5
    assert (logits(found, images) - expected).abs().max() < ALLOWED * expected.abs().max()


@pytest.mark.parametrize(
    ("choice", "spec", "cause"),
    [
        ("keras:no-such.h5", SMALL, r"cannot read the checkpoint no-such.h5 \(No such file or directory\)"),
        ("keras:README.md", ModelSpec(family="vgg16"), "keras checkpoints are read for MobileNetV1 alone"),
        ("keras:README.md", SMALL, r"cannot read README.md as HDF5"),
        ("torchvision:README.md", SMALL, "torchvision has no MobileNetV1"),
    ],
)
def test_what_is_no_such_checkpoint_is_refused(
    choice: str, spec: ModelSpec, cause: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("README.md").write_text("no checkpoint\n")
    with pytest.raises(UsageError, match=cause):
        resolve(choice, spec)


def test_a_checkpoint_of_another_width_names_the_first_tensor(tmp_path: Path) -> None:
    write_keras(tmp_path / "keras.h5", SMALL)
    with pytest.raises(UsageError, match=r"keras.h5 has stem.conv.weight of shape \(8, 3, 3, 3\), the model wants"):
        resolve(f"keras:{tmp_path}/keras.h5", ModelSpec(alpha=0.5, resolution=32))


def test_padding_folds_and_keeps_its_place() -> None:
    spec = ModelSpec(alpha=0.25, resolution=64, classes=7, padding="keras")
    module = build(spec)
    randomize(module, seed=0)
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(fold_batch_norm(module)(images), module(images))
        symmetric = build(ModelSpec(alpha=0.25, resolution=64, classes=7))
        symmetric.load_state_dict(module.state_dict())
        assert not torch.allclose(symmetric(images), module(images))
