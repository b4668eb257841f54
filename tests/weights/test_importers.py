"""Imported checkpoints give the logits of the frameworks they come from."""

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
from mbbench.weights import importers
from mbbench.weights.recipe import Recipe

SHARED = Path(__file__).parents[3] / "shared" / "data"
PUBLISHED = SHARED / "mobilenet_1_0_224_tf.h5"
LOGITS = SHARED / "mobilenet_1_0_224_tf_logits.npz"
SMALL = ModelSpec(alpha=0.25, resolution=32, classes=7)
TOLERANCE = 1e-4  # largest difference of a logit


def torchvision_models() -> Any:
    """Import torchvision's models with the CPU build of torch, which lacks two operators that torchvision expects.

    Nothing calls them.
    """
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor boxes, Tensor scores, float threshold) -> Tensor")  # type: ignore[no-untyped-call]
    from torchvision import models

    return models


def resolve(choice: str, spec: ModelSpec) -> weights.Weights:
    return weights.resolve(choice, spec, lambda: pytest.fail("training data was requested"), Recipe())


def logits(resolved: weights.Weights, images: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return resolved.build()(images)  # type: ignore[no-any-return]


@pytest.mark.skipif(not PUBLISHED.exists(), reason="the published ImageNet checkpoint is not in shared/data")
def test_the_published_keras_checkpoint_gives_the_logits_of_keras() -> None:
    resolved = resolve(f"keras:{PUBLISHED}", ModelSpec())
    assert (resolved.spec.classes, resolved.spec.padding, resolved.info.origin) == (1000, "keras", "imported")
    images = np.random.default_rng(7).uniform(-1, 1, (4, 224, 224, 3)).astype(np.float32)
    with np.load(LOGITS) as archive:
        expected = archive["logits"]
    actual = logits(resolved, torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    assert np.abs(actual - expected).max() < TOLERANCE


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
def test_keras_checkpoints_of_other_sizes_give_the_logits_of_keras(
    alpha: float, resolution: int, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", KERAS, str(alpha), str(resolution), str(tmp_path)]
    subprocess.run(command, check=True, env={**os.environ, "KERAS_BACKEND": "torch"}, capture_output=True)
    resolved = resolve(f"keras:{tmp_path}/model.h5", ModelSpec(alpha=alpha, resolution=resolution))
    with np.load(tmp_path / "logits.npz") as archive:
        images, expected = archive["images"], archive["logits"]
    actual = logits(resolved, torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    assert actual.shape == (2, 11)
    assert np.abs(actual - expected).max() < TOLERANCE * np.abs(expected).max()


KERAS_XCEPTION = """
import sys
import keras, numpy as np
side = int(sys.argv[1])
keras.utils.set_random_seed(3)
keras.applications.Xception(input_shape=(71, 71, 3), weights=None)  # so that the running numbers of names start later
model = keras.applications.Xception(
    input_shape=(side, side, 3), weights=None, classes=11, classifier_activation=None
)
random = np.random.default_rng(1)
for layer in model.layers:
    if isinstance(layer, keras.layers.BatchNormalization):
        layer.set_weights([random.uniform(0.5, 1.5, value.shape) for value in layer.get_weights()])
images = random.uniform(-1, 1, (2, side, side, 3)).astype("float32")
np.savez("logits.npz", images=images, logits=model.predict(images, verbose=0))
model.save("model.h5")
"""


@pytest.mark.skipif(importlib.util.find_spec("keras") is None, reason="Keras is not installed")
@pytest.mark.parametrize("side", [71, 96])
def test_kerass_xception_gives_its_logits(tmp_path: Path, side: int) -> None:
    command = [sys.executable, "-c", KERAS_XCEPTION, str(side)]
    environment = {**os.environ, "KERAS_BACKEND": "torch"}
    subprocess.run(command, check=True, env=environment, capture_output=True, cwd=tmp_path)
    resolved = resolve(f"keras:{tmp_path}/model.h5", ModelSpec("xception", resolution=side))
    assert (resolved.spec.classes, resolved.spec.padding) == (11, "keras")
    with np.load(tmp_path / "logits.npz") as archive:
        images, expected = archive["images"], archive["logits"]
    actual = logits(resolved, torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    assert np.abs(actual - expected).max() < TOLERANCE * np.abs(expected).max()


WHOLE_KERAS = """
import sys
import keras, numpy as np
keras.utils.set_random_seed(3)
model = keras.applications.MobileNet((75, 75, 3), alpha=0.25, weights=None, classes=11, classifier_activation=None)
images = np.random.default_rng(1).uniform(-1, 1, (2, 75, 75, 3)).astype("float32")
np.savez("logits.npz", images=images, logits=model.predict(images, verbose=0))
model.compile("adam", "mse")
model.save("model.h5")
model.save("model.keras")
model.save_weights("model.weights.h5")
"""


@pytest.mark.skipif(importlib.util.find_spec("keras") is None, reason="Keras is not installed")
def test_of_kerass_own_formats_the_legacy_file_of_a_whole_model_is_read(tmp_path: Path) -> None:
    environment = {**os.environ, "KERAS_BACKEND": "torch"}
    subprocess.run([sys.executable, "-c", WHOLE_KERAS], check=True, env=environment, capture_output=True, cwd=tmp_path)
    spec = ModelSpec(alpha=0.25, resolution=75)
    resolved = resolve(f"keras:{tmp_path}/model.h5", spec)
    with np.load(tmp_path / "logits.npz") as archive:
        images, expected = archive["images"], archive["logits"]
    actual = logits(resolved, torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    assert np.abs(actual - expected).max() < TOLERANCE * np.abs(expected).max()
    for name, what in (
        ("model.keras", "is a Keras archive (.keras)"),
        ("model.weights.h5", "has no names of layers, as Keras 3 saves weights"),
    ):
        with pytest.raises(UsageError) as caught:
            resolve(f"keras:{tmp_path}/{name}", spec)
        assert str(caught.value) == (
            f"{tmp_path}/{name} {what}; save the whole model with Keras, as model.save('FILE.h5'), and give"
            " --weights keras:FILE.h5"
        )


def test_an_imported_checkpoint_records_its_padding(tmp_path: Path) -> None:
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
    """Write seeded weights of `build(spec)` in the layout of the files that Keras publishes."""
    names = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
    module = build(spec)
    randomize(module, seed=0)
    with h5py.File(path, "w") as file:
        for name, value in module.state_dict().items():
            module_name, _, parameter = name.rpartition(".")
            array = value.numpy()
            if module_name == "classifier":
                layer, variable = "conv_preds", "kernel" if parameter == "weight" else "bias"
                array = array.T[None, None] if parameter == "weight" else array
            else:
                block, kind = module_name.rsplit(".", 1)
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


def timm_network(name: str) -> Any:
    """Return a network of timm with random statistics, for 9 classes."""
    torchvision_models()  # timm imports torchvision
    import timm

    torch.manual_seed(0)
    network = timm.create_model(name, pretrained=False, num_classes=9).eval()
    for key, value in network.state_dict().items():
        if key.endswith("running_var"):
            value.uniform_(0.001, 2.0)
        elif key.endswith("running_mean"):
            value.uniform_(-0.5, 0.5)
    return network


@pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")
@pytest.mark.parametrize("kind", ["timm:", ""])
def test_timms_network_with_a_head_convolution_is_refused_by_its_name(tmp_path: Path, kind: str) -> None:
    save_file(timm_network("mobilenetv1_100h").state_dict(), tmp_path / "h.safetensors")
    with pytest.raises(UsageError) as caught:
        resolve(f"{kind}{tmp_path}/h.safetensors", ModelSpec(resolution=96))
    assert str(caught.value) == (
        f"{tmp_path}/h.safetensors holds timm's mobilenetv1_100h, whose convolution conv_head after the last block the"
        " paper's MobileNetV1 does not have; give a checkpoint of timm's mobilenetv1_100, or of mobilenetv1_125 with"
        " --alpha 1.25"
    )


@pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")
@pytest.mark.parametrize(("name", "alpha"), [("mobilenetv1_100", 1.0), ("mobilenetv1_125", 1.25)])
def test_a_timm_checkpoint_gives_the_logits_of_timm(tmp_path: Path, name: str, alpha: float) -> None:
    oracle = timm_network(name)
    save_file(oracle.state_dict(), tmp_path / "timm.safetensors")
    resolved = resolve(f"timm:{tmp_path}/timm.safetensors", ModelSpec(alpha=alpha, resolution=96))
    images = torch.rand(2, 3, 96, 96) * 2 - 1
    with torch.inference_mode():
        expected = oracle(images)
    assert (resolved.spec.classes, resolved.spec.padding) == (9, "symmetric")
    assert (logits(resolved, images) - expected).abs().max() < TOLERANCE * expected.abs().max()


def test_vgg16_with_batch_norm_gives_the_logits_of_torchvision(tmp_path: Path) -> None:
    models = torchvision_models()
    torch.manual_seed(0)
    oracle = models.vgg16_bn(num_classes=5).eval()
    for name, value in oracle.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2.0)
    save_file(oracle.state_dict(), tmp_path / "vgg16_bn.safetensors")
    resolved = resolve(f"torchvision:{tmp_path}/vgg16_bn.safetensors", ModelSpec(family="vgg16", resolution=64))
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        expected = oracle(images)
    assert resolved.spec.classes == 5
    assert (logits(resolved, images) - expected).abs().max() < TOLERANCE * expected.abs().max()


def test_googlenet_with_auxiliary_heads_gives_the_logits_of_torchvision(tmp_path: Path) -> None:
    models = torchvision_models()
    torch.manual_seed(0)
    oracle = models.googlenet(num_classes=5, weights=None, init_weights=True).eval()
    torch.save(oracle.state_dict(), tmp_path / "googlenet.pth")
    resolved = resolve(f"torchvision:{tmp_path}/googlenet.pth", ModelSpec(family="googlenet", resolution=64))
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.inference_mode():
        expected = oracle(images)
    assert resolved.spec.classes == 5
    assert (logits(resolved, images) - expected).abs().max() < TOLERANCE * expected.abs().max()


@pytest.mark.parametrize(
    ("choice", "spec", "cause"),
    [
        ("keras:no-such.h5", SMALL, r"cannot read the checkpoint no-such.h5 \(No such file or directory\)"),
        ("keras:README.md", SMALL, "README.md is a text file that starts with 'not a checkpoint'"),
        ("timm:README.md", SMALL, "README.md is a text file"),
        ("torchvision:.", SMALL, ". is a folder, not a checkpoint"),
    ],
)
def test_an_unsuitable_checkpoint_is_refused(
    choice: str, spec: ModelSpec, cause: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("README.md").write_text("not a checkpoint\n")
    with pytest.raises(UsageError, match=cause):
        resolve(choice, spec)


def test_a_checkpoint_of_another_width_is_refused(tmp_path: Path) -> None:
    write_keras(tmp_path / "keras.h5", SMALL)
    with pytest.raises(UsageError, match=r"keras.h5 holds Keras's MobileNetV1 of alpha 0.25; give --alpha 0.25$"):
        resolve(f"keras:{tmp_path}/keras.h5", ModelSpec(alpha=0.5, resolution=32))


def test_folding_batch_norm_keeps_the_padding_of_keras() -> None:
    spec = ModelSpec(alpha=0.25, resolution=64, classes=7, padding="keras")
    module = build(spec)
    randomize(module, seed=0)
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(fold_batch_norm(module)(images), module(images))
        symmetric = build(ModelSpec(alpha=0.25, resolution=64, classes=7))
        symmetric.load_state_dict(module.state_dict())
        assert not torch.allclose(symmetric(images), module(images))


def test_wrong_shapes_of_vgg16_with_batch_norm_are_left_to_the_check_of_shapes() -> None:
    state = {
        "features.0.weight": torch.zeros(4, 3, 3, 3),
        "features.0.bias": torch.zeros(4),
        "features.x.y": torch.ones(1),
    }
    state |= {f"features.1.{name}": torch.ones(4) for name in ("weight", "bias", "running_mean", "running_var")}
    convert = importers.KINDS["torchvision"].convert
    spec = ModelSpec("vgg16")
    assert set(convert(state, spec, Path("x.pt"))) == {"features.0.weight", "features.0.bias"}
    for name in state:
        if name != "features.x.y":
            for shape in ((), (0,), (3,), (3, 3)):
                wrong = {**state, name: torch.zeros(shape)}
                assert convert(wrong, spec, Path("x.pt")) is wrong


def test_a_classifier_of_keras_without_values_is_unknown() -> None:
    empty = {"conv_preds/kernel": torch.zeros(0, 1, 1, 1)}
    converted = importers.KINDS["keras"].convert(empty, ModelSpec(), Path("x.h5"))
    assert list(converted) == ["conv_preds/kernel (unknown to Keras)"]
