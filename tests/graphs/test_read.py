"""What is an image classifier is read; anything else is refused with what the file has."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mbbench.errors import UsageError
from mbbench.graphs.read import Signature, load, signature

Make = Callable[..., onnx.ModelProto]
PATH = Path("net.onnx")


def refused(model: onnx.ModelProto, logits: str | None = None) -> str:
    with pytest.raises(UsageError) as caught:
        signature(model, PATH, logits)
    return str(caught.value)


@pytest.mark.parametrize(
    ("shape", "layout", "size"),
    [
        ((1, 3, 8, 8), "NCHW", (8, 8)),
        (("N", 3, 8, 12), "NCHW", (8, 12)),
        ((1, 8, 12, 3), "NHWC", (8, 12)),
        (("N", 3, "H", "W"), "NCHW", (None, None)),
    ],
)
def test_the_layout_follows_the_colors(make: Make, shape: tuple[int, ...], layout: str, size: tuple[int, int]) -> None:
    batch = 1 if shape[0] == 1 else None
    assert signature(make(shape=shape), PATH) == Signature("pixels", layout, *size, False, "out", 5, False, batch)  # type: ignore[arg-type]


def test_uint8_pixels_and_spatial_logits_are_recognized(make: Make) -> None:
    model = make(input_type=TensorProto.UINT8, output_shape=(1, 5, 1, 1))
    assert signature(model, PATH) == Signature("pixels", "NCHW", 8, 8, True, "out", 5, True, 1)


def test_a_file_without_an_image_is_refused_with_its_input(make: Make) -> None:
    assert "net.onnx has no image input: pixels float32 (1, 1, 8, 8)" in refused(make(shape=(1, 1, 8, 8)))
    assert "pixels int64 (1, 3, 8, 8)" in refused(make(input_type=TensorProto.INT64))


def test_a_file_with_two_inputs_is_refused_with_both(make: Make) -> None:
    model = make()
    model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1, "K"]))
    assert "net.onnx has 2 inputs (pixels float32 (1, 3, 8, 8), mask float32 (1, K))" in refused(model)


def test_of_several_outputs_one_must_be_named(make: Make) -> None:
    model = make()
    model.graph.output.append(helper.make_tensor_value_info("features", TensorProto.FLOAT, [1, 4]))
    text = refused(model)
    assert "net.onnx has 2 outputs (out float32 (1, 5), features float32 (1, 4)); name the logits with --logits" in text
    assert signature(model, PATH, "features").classes == 4
    assert "has no output 'x'; choose one of out" in refused(model, "x")


def test_an_output_that_is_no_logits_is_refused(make: Make) -> None:
    assert "net.onnx has no logits: its output is out float32 (1, 5, 7, 7)" in refused(make(output_shape=(1, 5, 7, 7)))


def save(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "net.onnx"
    onnx.save(model, path)
    return path


def test_custom_operators_and_control_flow_are_named(make: Make, tmp_path: Path) -> None:
    custom = make(middle=[helper.make_node("Fancy", ["a"], ["b"], domain="com.mine")])
    with pytest.raises(UsageError, match=r"net.onnx has custom operators: com.mine.Fancy; export it with ONNX's own"):
        load(save(custom, tmp_path))
    branch = helper.make_graph([], "branch", [], [])
    node = helper.make_node("If", ["a"], ["b"], then_branch=branch, else_branch=branch)
    with pytest.raises(UsageError, match=r"net.onnx has control flow: If; export it for a fixed path"):
        load(save(make(middle=[node]), tmp_path))


@pytest.mark.parametrize("content", [b"", b"not a network", b"\x00" * 64])
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "net.onnx").write_bytes(content)
    with pytest.raises(UsageError, match=r"net.onnx is not an ONNX file"):
        load(tmp_path / "net.onnx")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*net.onnx \(No such file or directory\)"):
        load(tmp_path / "net.onnx")


def external(make: Make, folder: Path, location: str) -> Path:
    """Write a file whose first tensor is stored at `location`, relative to its folder."""
    model = make()
    tensor = model.graph.initializer[0]
    data = numpy_helper.to_array(tensor).tobytes()
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    (folder / "tensors.data").write_bytes(data)
    (folder / "net.onnx").write_bytes(model.SerializeToString())
    return folder / "net.onnx"


def test_external_data_in_the_folder_is_loaded(make: Make, tmp_path: Path) -> None:
    expected = numpy_helper.to_array(make().graph.initializer[0])
    loaded = load(external(make, tmp_path, "tensors.data"))
    np.testing.assert_array_equal(numpy_helper.to_array(loaded.graph.initializer[0]), expected)


@pytest.mark.parametrize("location", ["../tensors.data", "/etc/hostname", ""])
def test_external_data_outside_the_folder_is_refused(make: Make, tmp_path: Path, location: str) -> None:
    with pytest.raises(UsageError, match="stores w outside its folder"):
        load(external(make, tmp_path, location))


def test_a_link_out_of_the_folder_is_refused(make: Make, tmp_path: Path) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    path = external(make, folder, "link")
    (folder / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(UsageError, match="stores w outside its folder: 'link'"):
        load(path)


def test_missing_external_data_is_named(make: Make, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"net.onnx needs gone.data, which is missing; put it next to the file"):
        load(external(make, tmp_path, "gone.data"))


@pytest.mark.parametrize("location", ["../secret", "/dev/zero", "link"])
def test_external_data_in_an_attribute_stays_in_the_folder_too(make: Make, tmp_path: Path, location: str) -> None:
    (tmp_path / "secret").write_bytes(bytes(64))
    folder = tmp_path / "net"
    folder.mkdir()
    (folder / "link").symlink_to("../secret")
    model = make()
    tensor = numpy_helper.from_array(np.ones(4, np.float32), "hidden")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    model.graph.node.append(helper.make_node("Constant", [], ["constant"], value=tensor))
    onnx.save(model, folder / "net.onnx")
    with pytest.raises(UsageError, match=r"net\.onnx stores hidden outside its folder:"):
        load(folder / "net.onnx")


def weighted(folder: Path, weight: np.ndarray[Any, Any]) -> Path:
    """Write a network of one convolution."""
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, 8, 8])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 5, 1, 1])
    node = helper.make_node("Conv", ["images", "stem.weight"], ["logits"], "stem")
    graph = helper.make_graph([node], "main", [images], [logits], [numpy_helper.from_array(weight, "stem.weight")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), folder / "net.onnx")
    return folder / "net.onnx"


def test_a_weight_of_another_dtype_or_with_nan_is_named(tmp_path: Path) -> None:
    weight = np.ones((5, 3, 8, 8), np.float32)
    load(weighted(tmp_path, weight))
    for dtype in ("int64", "uint8", "bool"):
        with pytest.raises(UsageError, match=rf"^stem\.weight in .*net\.onnx has the dtype {dtype};"):
            load(weighted(tmp_path, weight.astype(dtype)))
    weight[0, 0, 0, :2] = np.nan
    with pytest.raises(UsageError, match=r"^stem\.weight in .*net\.onnx has NaN: 2 of 960 values;"):
        load(weighted(tmp_path, weight))


def test_a_fifo_and_a_tensor_that_claims_too_much_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.onnx")
    with pytest.raises(UsageError, match=r"^cannot read .*fifo\.onnx \(it is a FIFO, not a file\);"):
        load(tmp_path / "fifo.onnx")
    path = weighted(tmp_path, np.ones((5, 3, 8, 8), np.float32))
    model = onnx.load(path)
    model.graph.initializer[0].dims[:] = [2**60]
    onnx.save(model, path)
    with pytest.raises(UsageError, match=r"net\.onnx is not valid ONNX \(.*stem\.weight"):
        load(path)
    model = onnx.load(weighted(tmp_path, np.ones((5, 3, 8, 8), np.float32)))
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 2**40
    onnx.save(model, path)
    with pytest.raises(UsageError, match=rf"net\.onnx has a tensor of {24 * 2**40} values: images;"):
        load(path)
