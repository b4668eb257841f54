"""Networks in ONNX files: their specs, the cache, and whole runs."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from typer.testing import CliRunner

from mbbench import plan, store
from mbbench.cli.app import app
from mbbench.errors import UsageError
from mbbench.graphs.onnx import to_onnx
from mbbench.models import build, default_preprocessing, files, randomize
from mbbench.models.cost import cost_of
from mbbench.profile import Profile
from mbbench.result import Result
from mbbench.spec import ModelSpec, Preprocessing


class Residual(torch.nn.Module):
    """Two convolutions with a residual sum, pooling, and five classes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(3, 32, 3, 2, 1)
        self.second = torch.nn.Conv2d(32, 32, 3, 1, 1)
        self.head = torch.nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        return self.head((x + torch.relu(self.second(x))).mean((2, 3)))  # type: ignore[no-any-return]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    module = Residual()
    randomize(module, 0)
    onnx.save(to_onnx(module.eval(), 32), tmp_path / "mine.v1.onnx")
    return tmp_path / "mine.v1.onnx"


def test_a_file_is_a_network_with_its_name_size_and_classes(path: Path) -> None:
    spec = files.spec_of(path)
    assert (spec.family, spec.name, spec.resolution, spec.classes) == ("onnx", "mine.v1", 32, 5)
    assert spec.label == "mine.v1-32"
    assert default_preprocessing(spec.family).mean == (0.485, 0.456, 0.406)
    assert files.spec_of(path) == spec  # from the cache
    files.path_of(spec).unlink()
    assert files.spec_of(path) == spec
    assert files.is_known(spec)


def test_pixels_of_a_uint8_file_are_not_normalized() -> None:
    assert default_preprocessing("onnx-uint8") == Preprocessing(mean=(0.0,) * 3, std=(1 / 255,) * 3)


def test_its_module_and_its_cost_are_the_files(path: Path) -> None:
    spec = files.spec_of(path)
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = Residual()
    randomize(expected, 0)
    with torch.inference_mode():
        torch.testing.assert_close(build(spec)(images), expected(images))
    assert cost_of(spec).mult_adds == 16 * 16 * 32 * (27 + 288) + 32 * 5
    counted, cost = files.count(path)
    printed = CliRunner().invoke(app, ["cost", "--model", str(path)])
    assert printed.stdout == CliRunner().invoke(app, ["cost", str(path)]).stdout != ""
    assert (counted.label, cost.mult_adds) == ("mine.v1-32", cost_of(spec).mult_adds)


def test_an_unknown_network_says_how_to_read_it() -> None:
    spec = ModelSpec("onnx", name="gone", resolution=32, sha256="00")
    with pytest.raises(UsageError, match=r"gone is not in this machine's cache; run it with --model gone.onnx"):
        files.graph(spec)


def test_a_fixed_size_is_kept_beside_other_networks_and_refused_alone(path: Path) -> None:
    mixed = plan.plan(Profile(model=("mobilenet_v1", str(path)), res=(64,), alpha=(0.5,), weights="random"))
    assert [(cell.model.label, cell.role) for cell in mixed.cells] == [
        ("0.5 MobileNet-64", "subject"),
        ("mine.v1-32", "subject"),
    ]
    with pytest.raises(UsageError, match=r"mine.v1.onnx takes images of 32x32, not 64; omit --res"):
        plan.plan(Profile(model=(str(path),), res=(64,)))


def test_an_operator_that_is_not_supported_is_refused_in_one_line(path: Path) -> None:
    model = onnx.load(path)
    relu = next(node for node in model.graph.node if node.op_type == "Relu")
    relu.op_type = "Softsign"
    onnx.save(model, path)
    with pytest.raises(
        UsageError, match=r"mine.v1 cannot be measured: operator Softsign \(.*\) is not supported; export"
    ):
        files.spec_of(path)


def test_a_network_for_one_image_only_is_refused(path: Path) -> None:
    model = onnx.load(path)
    mean = next(node for node in model.graph.node if node.op_type == "ReduceMean")
    axes = next(tensor for tensor in model.graph.initializer if tensor.name == mean.input[1])
    axes.CopyFrom(onnx.numpy_helper.from_array(np.array([0, 2, 3]), axes.name))
    pooled = mean.output[0]
    mean.output[0] = "pooled"
    mean.attribute[0].i = 1  # keepdims
    shape = onnx.numpy_helper.from_array(np.array([1, 32]), "shape")
    model.graph.initializer.append(shape)
    model.graph.node.insert(len(model.graph.node) - 1, onnx.helper.make_node("Reshape", ["pooled", "shape"], [pooled]))
    onnx.save(model, path)
    with pytest.raises(
        UsageError, match=r"mine.v1 computes only the batch size that it was exported for; export it for"
    ):
        files.spec_of(path)


def test_a_network_that_mixes_the_images_of_a_batch_is_refused(path: Path) -> None:
    model = onnx.load(path)
    gemm = next(node for node in model.graph.node if node.op_type == "Gemm")
    axes = onnx.numpy_helper.from_array(np.array([0]), "axes")
    model.graph.initializer.append(axes)
    mean = onnx.helper.make_node("ReduceMean", [gemm.input[0], "axes"], ["over the batch"], keepdims=1)
    difference = onnx.helper.make_node("Sub", [gemm.input[0], "over the batch"], ["difference"])
    gemm.input[0] = "difference"
    model.graph.node.insert(len(model.graph.node) - 1, mean)
    model.graph.node.insert(len(model.graph.node) - 1, difference)
    onnx.save(model, path)
    with pytest.raises(UsageError, match=r"mine.v1 mixes the images of a batch: each changes the others' logits"):
        files.spec_of(path)


def measure(path: Path, folder: Path, backends: str) -> list[Result]:
    """Measure a file in fp32 and INT8 on `backends`, and return all results."""
    results, profile = folder / "results.jsonl", folder / "short.toml"
    profile.write_text(
        "images = 24\n[settings]\nmin_samples = 20\nmin_s = 0.05\nmax_s = 0.5\nwarmup_max_s = 0.5\nthroughput_s = 0.1\n"
    )
    arguments = ["run", "--model", str(path), "--precision", "fp32,int8", "--profile", str(profile)]
    arguments += ["--backend", backends, "--data", "digits", "--results", str(results)]
    outcome = CliRunner().invoke(app, arguments)
    assert outcome.exit_code == 0, outcome.output
    measured = store.read(results)
    assert [(result.cell.backend, result.cell.precision) for result in measured] == [
        (backend, precision) for backend in backends.split(",") for precision in ("fp32", "int8")
    ]
    return measured


def test_every_precision_and_runtime_measures_a_file(path: Path, tmp_path: Path) -> None:
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 48
    del model.graph.value_info[:]
    onnx.save(model, path)
    measured = measure(path, tmp_path, "onnxruntime,openvino,torch")
    for result in measured:
        assert result.failure is None, result.failure
        assert result.cell.model.label == "mine.v1-48x32"
        assert result.measured.parity is not None and result.measured.parity.passed
        assert result.measured.accuracy is not None
        assert result.measured.accuracy.top1 is None  # its five classes are not the digits
        assert result.measured.accuracy.agreement > 0.8
        assert result.executed is not None and result.executed.shares[0].precision == result.cell.precision


def test_random_weights_are_others_than_the_files(path: Path) -> None:
    from mbbench import weights

    spec = files.spec_of(path)
    kept, random = (weights.resolve(choice, spec, lambda: None, None) for choice in (None, "random"))  # type: ignore[arg-type, return-value]
    assert (kept.info.origin, random.info.origin) == ("file", "random")
    module = random.build()
    exported = to_onnx(module, 32)
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in exported.graph.initializer}
    np.testing.assert_array_equal(stored["second.weight"], module.get_parameter("second.weight").numpy())
    with pytest.raises(UsageError, match=r"mine.v1 has its weights in its file; omit --weights, or give"):
        weights.resolve("x.pth", spec, lambda: None, None)  # type: ignore[arg-type, return-value]


class Transformer(torch.nn.Module):
    """Patches, a class token, attention with one head, a feed-forward layer, and five classes."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = torch.nn.Conv2d(3, 32, 8, 8)
        self.token = torch.nn.Parameter(torch.linspace(-1, 1, 32).reshape(1, 1, 32))
        self.norm = torch.nn.LayerNorm(32)
        self.mixed, self.out = torch.nn.Linear(32, 96), torch.nn.Linear(32, 32)
        self.wide, self.narrow = torch.nn.Linear(32, 64), torch.nn.Linear(64, 32)
        self.head = torch.nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        query, key, value = self.mixed(self.norm(x)).chunk(3, -1)
        x = x + self.out(torch.softmax(query @ key.transpose(1, 2) / 6, -1) @ value)
        x = x + self.narrow(torch.nn.functional.gelu(self.wide(self.norm(x))))
        return self.head(x[:, 0])  # type: ignore[no-any-return]


def test_a_transformer_is_measured_in_every_precision(tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = tmp_path / "vit.onnx"
    onnx.save(to_onnx(Transformer().eval(), 32), path)
    measured = measure(path, tmp_path, "onnxruntime,openvino")
    for result in measured:
        assert result.measured.parity is not None and result.measured.parity.passed
        assert result.measured.accuracy is not None
        assert result.measured.accuracy.agreement > 0.8
