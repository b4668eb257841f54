"""Whatever form a network has, its normal form gives the same logits for any batch, on ONNX Runtime and on PyTorch."""
# ruff: noqa: E501  (a line an operator)

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from mbbench.compress import calibrate
from mbbench.errors import UsageError
from mbbench.graphs.fx import layer_calls, to_module
from mbbench.graphs.normalize import normalize
from mbbench.graphs.onnx import to_onnx
from mbbench.graphs.read import load, signature

Make = Callable[..., onnx.ModelProto]
node = helper.make_node


def images(batch: int = 3, height: int = 8, width: int = 8) -> Any:
    return np.random.default_rng(1).uniform(-1, 1, (batch, 3, height, width)).astype(np.float32)


def run(model: onnx.ModelProto, inputs: Any) -> Any:
    """Return the output of a foreign model, image by image: its batch is 1."""
    opened = calibrate.session(model)
    return np.concatenate([opened.run(None, {"pixels": inputs[i : i + 1]})[0] for i in range(len(inputs))])


def normal(model: onnx.ModelProto, height: int = 8, width: int = 8) -> onnx.ModelProto:
    return normalize(model, signature(model, Path("net.onnx")), height, width)


def check(graph: onnx.ModelProto, inputs: Any, expected: Any) -> None:
    """Check the logits of a normal form on ONNX Runtime and on PyTorch, and its names."""
    np.testing.assert_allclose(calibrate.logits(graph, inputs), expected, rtol=1e-4, atol=1e-5)
    with torch.inference_mode():
        np.testing.assert_allclose(to_module(graph)(torch.from_numpy(inputs)).numpy(), expected, rtol=1e-4, atol=1e-5)
    assert [value.name for value in (*graph.graph.input, *graph.graph.output)] == ["images", "logits"]
    assert all(entry.name == entry.output[0] or entry.output[0] == "logits" for entry in graph.graph.node)


def test_names_come_from_the_files_nodes(make: Make) -> None:
    graph = normal(make())
    assert [name for name, _ in layer_calls(to_module(graph))] == ["body-conv", "head-fc"]
    assert {"body-conv.weight", "head-fc.weight", "head-fc.bias"} <= {tensor.name for tensor in graph.graph.initializer}
    check(graph, images(), run(make(), images()))


NORM = {name: np.full(4, value, np.float32) for name, value in (("s", 2.0), ("t", 0.5), ("m", 0.1), ("v", 1.5))}
MIDDLES: dict[str, tuple[list[onnx.NodeProto], dict[str, Any]]] = {
    "BatchNormalization": ([node("BatchNormalization", ["a", "s", "t", "m", "v"], ["b"])], NORM),
    "LeakyRelu": ([node("LeakyRelu", ["a"], ["b"], alpha=0.2)], {}),
    "PRelu": ([node("PRelu", ["a", "k"], ["b"])], {"k": np.array([[[0.1]], [[0.2]], [[0.3]], [[0.4]]], np.float32)}),
    "Clip": ([node("Clip", ["a", "lo", "hi"], ["b"])], {"lo": np.float32(-0.1), "hi": np.float32(0.4)}),
    "Clip from below": ([node("Clip", ["a", "lo"], ["b"])], {"lo": np.float32(-0.1)}),
    "HardSigmoid": ([node("HardSigmoid", ["a"], ["b"], alpha=1 / 6, beta=0.5)], {}),
    "SiLU": ([node("Sigmoid", ["a"], ["c"]), node("Mul", ["a", "c"], ["b"])], {}),
    "Elu": ([node("Elu", ["a"], ["b"], alpha=0.7)], {}),
    "LRN": ([node("LRN", ["a"], ["b"], size=3, alpha=0.3, beta=0.6, bias=1.5)], {}),
    "Sum": ([node("Sum", ["a", "a", "a"], ["b"])], {}),
    "residual": ([node("Relu", ["a"], ["c"]), node("Add", ["a", "c"], ["b"])], {}),
    "max pooling of one side": ([node("MaxPool", ["a"], ["b"], kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1])], {}),
    "max pooling, same": ([node("MaxPool", ["a"], ["b"], kernel_shape=[2, 2], auto_pad="SAME_UPPER")], {}),
    "average pooling of one side": ([node("AveragePool", ["a"], ["b"], kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1])], {}),
    "average pooling, counted": ([node("AveragePool", ["a"], ["b"], kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1)], {}),
    "split": ([node("Split", ["a", "z"], ["c", "d"], axis=1), node("Concat", ["d", "c"], ["b"], axis=1)], {"z": np.array([1, 3])}),
    "slice": ([node("Slice", ["a", "st", "en", "ax", "sp"], ["c"]), node("Concat", ["c", "c"], ["b"], axis=1)],
              {"st": np.array([0]), "en": np.array([4]), "ax": np.array([1]), "sp": np.array([2])}),
    "channel shuffle": ([node("Reshape", ["a", "r1"], ["c"]), node("Transpose", ["c"], ["d"], perm=[0, 2, 1, 3, 4]),
                         node("Reshape", ["d", "r2"], ["b"])], {"r1": np.array([1, 2, 2, 8, 8]), "r2": np.array([1, 4, 8, 8])}),
    "fully connected layer of pixels": ([node("Transpose", ["a"], ["c"], perm=[0, 2, 3, 1]), node("Reshape", ["c", "r1"], ["d"]),
                                         node("MatMul", ["d", "k"], ["e"]), node("Reshape", ["e", "r2"], ["g"]),
                                         node("Transpose", ["g"], ["b"], perm=[0, 3, 1, 2])],
                                        {"r1": np.array([64, 4]), "k": np.full((4, 4), 0.3, np.float32), "r2": np.array([1, 8, 8, 4])}),
    "pad": ([node("Pad", ["a", "pd", "pv"], ["b"])], {"pd": np.array([0, 0, 1, 0, 0, 0, 0, 2]), "pv": np.float32(0.5)}),
    "resize": ([node("Resize", ["a", "", "sc"], ["b"], mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")],
               {"sc": np.array([1, 1, 2, 2], np.float32)}),
    "squeeze and excite": ([node("GlobalAveragePool", ["a"], ["c"]), node("Conv", ["c", "q"], ["d"]), node("Sigmoid", ["d"], ["e"]),
                            node("Mul", ["a", "e"], ["b"])], {"q": np.full((4, 4, 1, 1), 0.3, np.float32)}),
    "transposed convolution": ([node("ConvTranspose", ["a", "q"], ["b"], strides=[2, 2])], {"q": np.full((4, 4, 2, 2), 0.3, np.float32)}),
    "same convolution": ([node("Conv", ["a", "q"], ["b"], strides=[2, 2], auto_pad="SAME_LOWER")], {"q": np.full((4, 4, 3, 3), 0.3, np.float32)}),
    "dilated, grouped convolution": ([node("Conv", ["a", "q"], ["b"], dilations=[2, 2], pads=[2] * 4, group=2)],
                                     {"q": np.arange(72, dtype=np.float32).reshape(4, 2, 3, 3) / 72}),
    "gather of a table": ([node("Gather", ["a", "ix"], ["c"], axis=3), node("ReduceMean", ["c"], ["b"], axes=[4], keepdims=0)],
                          {"ix": np.array([[0, 1], [2, 3], [4, 7]])}),
    "gather of one": ([node("Gather", ["a", "ix"], ["c"], axis=2), node("Unsqueeze", ["c", "ax"], ["b"])],
                      {"ix": np.array(3), "ax": np.array([2])}),
    "class token": ([node("Concat", ["k", "a"], ["b"], axis=2)], {"k": np.full((1, 4, 1, 8), 0.3, np.float32)}),
    "tokens on both sides": ([node("Concat", ["k", "a", "k"], ["b"], axis=-1)], {"k": np.full((1, 4, 8, 1), 0.3, np.float32)}),
    "strided copy": ([node("Reshape", ["a", "r1"], ["c"]), node("Gather", ["c", "ix"], ["b"])],
                     {"r1": np.array([-1]), "ix": np.arange(256).reshape(1, 4, 8, 8)}),
    "dropout": ([node("Dropout", ["a"], ["b"])], {}),
}  # fmt: skip


@pytest.mark.parametrize("name", MIDDLES)
def test_an_operator_keeps_its_meaning(make: Make, name: str) -> None:
    middle, constants = MIDDLES[name]
    model = make(middle=middle, constants=constants)
    check(normal(model), images(), run(model, images()))


def test_batch_norm_is_folded_into_its_convolution(make: Make) -> None:
    middle, constants = MIDDLES["BatchNormalization"]
    graph = normal(make(middle=middle, constants=constants))
    assert [entry.op_type for entry in graph.graph.node] == ["Conv", "GlobalAveragePool", "Flatten", "Gemm"]


def scaled_norm(scale: Any, *after: onnx.NodeProto) -> tuple[list[onnx.NodeProto], dict[str, Any]]:
    """Return a batch norm that no convolution takes in, a product with `scale`, a sum, and the nodes `after`."""
    nodes = [
        node("Relu", ["a"], ["c"]),
        node("BatchNormalization", ["c", "s", "t", "m", "v"], ["d"]),
        node("Mul", ["d", "k"], ["e"]),
        node("Add", ["h", "e"], ["g"]),
    ]
    return [*nodes, *after], {**NORM, "k": scale, "h": np.array([0.3, -1, 2, 0.5], np.float32).reshape(4, 1, 1)}


CHANNELS = np.array([2, -1, 0.5, 3], np.float32).reshape(1, 4, 1, 1)


def test_caffes_scale_layer_is_folded_into_its_batch_norm(make: Make) -> None:
    middle, constants = scaled_norm(CHANNELS, node("Relu", ["g"], ["b"]))
    model = make(middle=middle, constants=constants)
    graph = normal(model)
    assert [entry.op_type for entry in graph.graph.node][:4] == ["Conv", "Relu", "BatchNormalization", "Relu"]
    check(graph, images(), run(model, images()))


@pytest.mark.parametrize(
    ("scale", "last"),
    [
        (np.arange(8, dtype=np.float32).reshape(1, 1, 1, 8), node("Relu", ["g"], ["b"])),
        (np.float32(2), node("Relu", ["g"], ["b"])),
        (CHANNELS, node("Add", ["g", "d"], ["b"])),
    ],
    ids=["a constant of each column", "one constant", "a batch norm read twice"],
)
def test_other_constants_after_a_batch_norm_stay(make: Make, scale: Any, last: onnx.NodeProto) -> None:
    middle, constants = scaled_norm(scale, last)
    model = make(middle=middle, constants=constants)
    graph = normal(model)
    assert "Mul" in {entry.op_type for entry in graph.graph.node}
    check(graph, images(), run(model, images()))


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 17, 21])
def test_every_opset_is_read(make: Make, opset: int) -> None:
    middle = [node("Relu", ["a"], ["c"]), node("BatchNormalization", ["c", "s", "t", "m", "v"], ["b"])]
    model = make(middle=middle, constants=NORM, opset=opset)
    check(normal(model), images(), run(model, images()))


def test_constants_of_an_old_file_need_not_be_inputs(make: Make, tmp_path: Path) -> None:
    model = make()
    model.ir_version = 3
    onnx.save(model, tmp_path / "net.onnx")
    check(normal(load(tmp_path / "net.onnx")), images(), run(make(), images()))


def test_a_batch_of_minus_one_is_open(make: Make, tmp_path: Path) -> None:
    model = make(shape=(-1, 3, 8, 8), output_shape=(-1, 5))
    onnx.save(model, tmp_path / "net.onnx")
    read = load(tmp_path / "net.onnx")
    assert signature(read, tmp_path / "net.onnx").batch is None
    check(normal(read), images(), run(make(), images()))


def test_a_batch_norm_with_computed_parameters_is_left_as_it_is(make: Make) -> None:
    middle, constants = scaled_norm(CHANNELS, node("Relu", ["g"], ["b"]))
    middle = [node("DequantizeLinear", ["q", "qs"], ["s"]), *middle]
    del constants["s"]
    model = make(middle=middle, constants={**constants, "q": np.full(4, 4, np.int8), "qs": np.float32(0.5)})
    check(normal(model), images(), run(model, images()))


def test_a_final_softmax_is_dropped(make: Make) -> None:
    model = make(after=[node("Softmax", ["scores"], ["out"], axis=1)])
    probabilities = run(model, images())
    graph = normal(model)
    check(graph, images(), run(make(), images()))
    logits = calibrate.logits(graph, images())
    np.testing.assert_array_equal(logits.argmax(axis=1), probabilities.argmax(axis=1))


def test_spatial_logits_are_flattened(make: Make) -> None:
    model = make(
        after=[node("Unsqueeze", ["scores", "ax"], ["out"])],
        constants={"ax": np.array([2, 3])},
        output_shape=(1, 5, 1, 1),
    )
    check(normal(model), images(), run(model, images()).reshape(3, 5))


@pytest.mark.parametrize("cancels", [True, False])
def test_nhwc_becomes_nchw(make: Make, cancels: bool) -> None:
    before = [node("Transpose", ["pixels"], ["x"], perm=[0, 3, 1, 2])]
    if not cancels:
        before = [node("Identity", ["pixels"], ["y"]), node("Transpose", ["y"], ["x"], perm=[0, 3, 1, 2])]
    model = make(before=before, shape=(1, 8, 8, 3))
    graph = normal(model)
    check(graph, images(), run(model, images().transpose(0, 2, 3, 1)))
    if cancels:
        assert "Transpose" not in [entry.op_type for entry in graph.graph.node]


def test_uint8_pixels_become_floats(make: Make) -> None:
    before = [node("Cast", ["pixels"], ["y"], to=TensorProto.FLOAT), node("Mul", ["y", "c"], ["x"])]
    model = make(before=before, constants={"c": np.float32(1 / 255)}, input_type=TensorProto.UINT8)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3, 8, 8), np.uint8)
    graph = normal(model)
    check(graph, pixels.astype(np.float32), run(model, pixels))
    assert "Cast" not in [entry.op_type for entry in graph.graph.node]


def test_rectangular_and_open_sizes_are_fixed(make: Make) -> None:
    model = make(shape=("N", 3, "H", "W"))
    check(normal(model, 7, 11), images(2, 7, 11), run(model, images(2, 7, 11)))


def test_a_constant_joined_to_two_tensors_is_refused(make: Make) -> None:
    """It is exported for one batch size, and a batch of another would fail while it is measured."""
    middle = [node("Concat", ["a", "token", "a"], ["b"], axis=2, name="join")]
    with pytest.raises(UsageError, match=r"join joins a constant to every image, which is not supported; export it"):
        normal(make(middle=middle, constants={"token": np.zeros((1, 4, 1, 8), np.float32)}))


def test_what_is_fused_with_a_layer_has_its_name(make: Make) -> None:
    middle = [
        node("Sigmoid", ["a"], ["s1"]), node("Mul", ["a", "s1"], ["m"]), node("Conv", ["m", "q"], ["c"], "second"),
        node("Add", ["c", "m"], ["d"]), node("Relu", ["d"], ["b"]),
    ]  # fmt: skip
    graph = normal(make(middle=middle, constants={"q": np.full((4, 4, 1, 1), 0.3, np.float32)}))
    assert [entry.name for entry in graph.graph.node][:6] == [
        "body-conv", "body-conv/act", "body-conv/act-2", "second", "second/act", "second/act-2",
    ]  # fmt: skip


def test_a_layers_name_is_no_beginning_of_anothers(make: Make) -> None:
    middle = [
        node("Abs", ["a"], ["z"], "n"),
        node("Abs", ["z"], ["y"], "n.1.x"),
        node("Relu", ["y"], ["c"], "/body/conv/x"),
        node("Relu", ["c"], ["d"], "/body/conv"),
        node("Relu", ["d"], ["b"], "n.1"),
    ]
    names = [entry.name for entry in normal(make(middle=middle)).graph.node if "/act" not in entry.name]
    assert len(set(names)) == len(names)
    assert not [(a, b) for a in names for b in names if b.startswith((f"{a}.", f"{a}/", f"{a}_"))]


class Encoder(torch.nn.Module):
    """Patches, a class token, and a transformer's layer, which moves the batch to another axis."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = torch.nn.Conv2d(3, 16, 4, 4)
        self.token = torch.nn.Parameter(torch.linspace(-1, 1, 16).reshape(1, 1, 16))
        self.attention = torch.nn.MultiheadAttention(16, 2, batch_first=True)
        self.head = torch.nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.head(x.mean(1))  # type: ignore[no-any-return]


class Resized(torch.nn.Module):
    """A feature map at half the size, resized to the size of another."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.stem, self.head, self.mode = torch.nn.Conv2d(3, 8, 3, 1, 1), torch.nn.Linear(8, 5), mode

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        pooled = torch.nn.functional.max_pool2d(x, 2)
        resized = torch.nn.functional.interpolate(pooled, size=x.shape[2:], mode=self.mode)
        return self.head((x * resized).mean((2, 3)))  # type: ignore[no-any-return]


class Folded(torch.nn.Module):
    """Attention between the pixels at the same place of different patches, as MobileViT's: the batch is merged."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mixed, self.head = torch.nn.Conv2d(3, 8, 3, 1, 1), torch.nn.Linear(8, 8), torch.nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        batch, channels, height, width = x.shape
        y = x.reshape(batch * channels * height // 2, 2, width // 2, 2).transpose(1, 2)
        y = (
            y.reshape(batch, channels, height * width // 4, 4)
            .transpose(1, 3)
            .reshape(-1, height * width // 4, channels)
        )
        y = self.mixed(y).reshape(batch, 4, -1, channels).transpose(1, 3)
        y = y.reshape(batch * channels * height // 2, width // 2, 2, 2).transpose(1, 2).reshape(x.shape)
        return self.head((x + y).mean((2, 3)))  # type: ignore[no-any-return]


@pytest.mark.parametrize("module", [Encoder(), Resized("nearest"), Resized("bilinear"), Folded()])
def test_a_file_for_any_batch_computes_each_image_alone(module: torch.nn.Module) -> None:
    graph = normal(to_onnx(module.eval(), 8))
    with torch.inference_mode():
        check(graph, images(), module(torch.from_numpy(images())).numpy())


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_a_resize_exported_for_one_image_takes_any_batch(mode: str) -> None:
    module = Resized(mode).eval()
    program = torch.onnx.export(module, (torch.zeros(1, 3, 8, 8),), dynamo=True, verbose=False, opset_version=18)
    assert program is not None
    with torch.inference_mode():
        check(normal(program.model_proto), images(), module(torch.from_numpy(images())).numpy())
