"""Networks in ONNX files on every runtime: parity, the cost of our loop, the gain of INT8, and rival quantizers.

    .venv/bin/python benchmarks/networks.py export FOLDER PHOTOS          # writes the networks
    .venv/bin/python benchmarks/networks.py measure FOLDER PHOTOS RECORDS [NAME ...] [--rivals PYTHON]
    .venv/bin/python benchmarks/networks.py table RECORDS                 # prints Markdown

`export` takes classifiers of torchvision and timm, and the ONNX files in onnx's own package. Their weights are random,
with batch norm's statistics taken from PHOTOS. Speed does not depend on the weights, and activations are of a usual
size; but an agreement compares quantizers only, and says nothing about the published weights.

`measure` appends a line to RECORDS for each network, runtime and precision: parity with PyTorch, the ratio of our
latency to that of a bare loop over the runtime, of INT8 to FP32, and the share of 200 photos that INT8 classifies as
FP32 does. Targets: parity everywhere, 0.97 to 1.03. PYTHON is of an environment with `pip install nncf openvino onnx
torch`: then NNCF's default, and ONNX Runtime's `quantize_static`, quantize the same network with the same photos, and
agreement and latency (alternating with ours, on the same runtime) are added. Target: agreement no lower and latency no
higher in at least 90 % of the cells. One thread; sessions alternate in one process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

_TEST, _TRAIN = 200, 300  # photos
_SECONDS, _ROUNDS = 0.5, 6
_PARITY_BATCH = 4
_BACKENDS = ("onnxruntime", "openvino", "torch")
ZOO = {
    "torchvision": (
        "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "shufflenet_v2_x1_0", "mnasnet1_0",
        "regnet_y_400mf", "resnet18", "efficientnet_b0", "densenet121", "convnext_tiny",
    ),
    "timm": ("efficientnet_lite0", "vit_tiny_patch16_224"),
}  # fmt: skip


@dataclass(frozen=True)
class Record:
    """A cell: ratios of medians, and shares of photos. `reason`: why figures are missing."""

    network: str
    backend: str
    precision: str
    parity: float | None = None  # largest difference to PyTorch's logits, relative to the largest logit
    median_ms: float | None = None
    over_loop: float | None = None
    int8_over_fp32: float | None = None
    agreement: float | None = None
    rivals: dict[str, tuple[float, float]] | None = None  # agreement; our latency over theirs
    reason: str | None = None


def export(folder: Path, photos: Path) -> None:
    """Write the networks of `ZOO` and of onnx's package to `folder`."""
    import onnx
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]  # for a torchvision built for another PyTorch
    for schema in ("nms(Tensor d, Tensor s, float t) -> Tensor", "qnms(Tensor d, Tensor s, float t) -> Tensor"):
        library.define(schema)  # type: ignore[no-untyped-call]
    import timm
    import torchvision

    from mbbench.graphs.onnx import to_onnx

    folder.mkdir(parents=True, exist_ok=True)
    images = torch.from_numpy(load(photos, "train")[:64])
    for library_name, names in ZOO.items():
        for name in names:
            torch.manual_seed(0)
            module = torchvision.models.get_model(name) if library_name == "torchvision" else timm.create_model(name)
            for layer in module.modules():
                if isinstance(layer, torch.nn.BatchNorm2d):
                    layer.momentum = None  # the mean over all batches
            with torch.no_grad():
                module.train()(images)
            onnx.save(to_onnx(module.eval(), 224), folder / f"{name}.onnx")
    rng = np.random.default_rng(0)
    for path in sorted(Path(onnx.__file__).parent.glob("backend/test/data/light/*.onnx")):
        model = onnx.load(path)
        _randomize(model, rng)
        name = path.name.removeprefix("light_")
        onnx.save(model, folder / (f"onnx_{name}" if path.stem.removeprefix("light_") in ZOO["torchvision"] else name))


def _randomize(model: Any, rng: np.random.Generator) -> None:
    """Replace the weights of convolutions and fully connected layers, which onnx's files fill with one value."""
    import onnx

    sizes = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    fills = {node.output[0]: node for node in model.graph.node if node.op_type == "ConstantOfShape"}
    shapes = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for name, node in fills.items():
        sizes[name] = shapes[node.input[0]].tolist()
    for node in list(model.graph.node):
        if node.op_type in ("Conv", "Gemm") and node.input[1] in sizes:
            shape = sizes[node.input[1]]
            inputs = np.prod(shape[1:]) if node.op_type == "Conv" else max(shape)
            weights = rng.normal(0, np.sqrt(2 / inputs), shape).astype(np.float32)
            name = f"{node.input[1]}.random"
            model.graph.initializer.append(onnx.numpy_helper.from_array(weights, name))
            node.input[1] = name


def load(photos: Path, split: str) -> np.ndarray:
    """Return 200 photos to test with, or 300 to calibrate with, as a network of ImageNet takes them."""
    from PIL import Image

    from mbbench.data.feed import to_float
    from mbbench.data.preprocess import Preprocess
    from mbbench.models import default_preprocessing

    files = sorted(path for path in photos.rglob("*") if path.suffix.lower() in (".png", ".jpg", ".jpeg"))
    order = np.random.default_rng(0).permutation(len(files))
    chosen = order[:_TEST] if split == "test" else order[_TEST : _TEST + _TRAIN]
    crop = Preprocess((224, 224), 0.875)
    pixels = np.stack([crop.resize(Image.open(files[index])) for index in chosen])
    return to_float(pixels, default_preprocessing("onnx"))


def measure(path: Path, train: np.ndarray, test: np.ndarray, rivals: str | None) -> Iterator[Record]:
    """Yield the records of the network in `path`; `train` and `test` are photos (`load`)."""
    import onnx
    import torch

    from mbbench import registry
    from mbbench.artifacts.export import export as export_fp32
    from mbbench.artifacts.export import export_quantized
    from mbbench.compress import calibrate, search
    from mbbench.errors import MbbenchError
    from mbbench.graphs.fx import to_module
    from mbbench.models import files

    spec = files.spec_of(path, 224)
    graph = files.graph(spec)
    calibration = calibrate.Calibration(train[::2], train[1::2], None, "photos", "photos")
    expected = calibrate.logits(graph, test)
    with torch.inference_mode():
        reference = to_module(graph)(torch.from_numpy(test[:_PARITY_BATCH])).numpy()

    def build() -> Any:
        return to_module(graph)

    with ExitStack() as stack:
        others = {} if rivals is None else stack.enter_context(quantized_by_rivals(path.name, graph, train, rivals))
        for name in _BACKENDS:
            backend = registry.load(name)
            try:
                exported = export_fp32(spec, spec.sha256, "onnx", build)
                dialect = backend.dialects("cpu" if name == "torch" else next(iter(backend.devices())))["int8"]
                best = search.best_quantization(
                    spec, spec.sha256, build, lambda: calibration, f"photos {_TEST}", dialect=dialect
                )
                small = export_quantized(lambda: best.write(dialect), best.graph.stem, "onnx", dialect)  # noqa: B023
                with (
                    backend.open(exported.artifact(spec, 1), "", threads=1, stage=lambda _: None) as fp32,
                    backend.open(small.artifact(spec, 1, "int8"), "", threads=1, stage=lambda _: None) as int8,
                ):
                    difference = float(
                        np.abs(fp32.run(test[:_PARITY_BATCH]) - reference).max() / np.abs(reference).max()
                    )
                    yield timed(path.stem, name, "fp32", fp32, test, exported.path, parity=difference)
                    record = timed(path.stem, name, "int8", int8, test, small.path)
                    _, _, gain = race(lambda: int8.run(test[:1]), lambda: fp32.run(test[:1]))
                    compared = {}
                    for rival, files_of in others.items():
                        if name not in files_of:
                            continue
                        if subprocess.run([sys.executable, __file__, "open", name, files_of[name]]).returncode < 0:
                            print(f"{path.name}: {name} crashes on {rival}'s file", file=sys.stderr)
                            continue
                        try:
                            with opened(name, files_of[name]) as call:
                                _, _, ratio = race(lambda: int8.run(test[:1]), lambda: call(test[:1]))
                                compared[rival] = agreement(call, test, expected), ratio
                        except RuntimeError as error:  # OpenVINO refuses a ViT of ONNX Runtime's
                            print(f"{path.name}: {rival} on {name}: {error}", file=sys.stderr)
                    yield Record(
                        **{**asdict(record), "int8_over_fp32": gain, "agreement": agreement(int8.run, test, expected),
                           "rivals": compared or None}
                    )  # fmt: skip
            except (MbbenchError, onnx.checker.ValidationError) as error:
                yield Record(path.stem, name, "int8", reason=str(error))


def timed(
    network: str, backend: str, precision: str, session: Any, test: np.ndarray, path: Path, parity: float | None = None
) -> Record:
    """Return a record with our latency, and its ratio to a bare loop's where one can be written for the file."""
    if backend == "torch":  # torch_vs_loop.py has the ratio
        from common import median_ms

        return Record(network, backend, precision, parity, median_ms(lambda: session.run(test[:1]), _SECONDS))
    with opened(backend, path) as call:
        ours, _, ratio = race(lambda: session.run(test[:1]), lambda: call(test[:1]))
    return Record(network, backend, precision, parity, ours, ratio)


def race(first: Callable[[], object], second: Callable[[], object]) -> tuple[float, float, float]:
    """Return the medians of two calls in ms, and the median ratio of alternating blocks."""
    from common import alternate, median_ms, pin

    cpus = os.sched_getaffinity(0)
    pin()  # only while it is timed: quantizing uses all CPUs
    try:
        return alternate(lambda: median_ms(first, _SECONDS), lambda: median_ms(second, _SECONDS), _ROUNDS)
    finally:
        os.sched_setaffinity(0, cpus)


def agreement(call: Callable[[np.ndarray], np.ndarray], images: np.ndarray, expected: np.ndarray) -> float:
    """Return the share of images with the same top-1 class."""
    answers = np.concatenate([call(images[index : index + 1]) for index in range(len(images))])
    return float((answers.argmax(1) == expected.argmax(1)).mean())


@contextmanager
def opened(backend: str, path: Path) -> Iterator[Callable[[np.ndarray], np.ndarray]]:
    """Open a file in a bare runtime with one thread; the call takes images and returns logits."""
    if backend == "openvino":
        import openvino

        core = openvino.Core()
        model = core.read_model(path)
        model.reshape([1, 3, 224, 224])
        options = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1}
        request = core.compile_model(model, "CPU", options).create_infer_request()

        def infer(images: np.ndarray) -> np.ndarray:
            request.get_input_tensor(0).data[:] = images
            request.infer()
            return request.get_output_tensor(0).data.copy()  # type: ignore[no-any-return]

        yield infer
        return
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    yield lambda images: session.run(None, {name: images})[0]


@contextmanager
def quantized_by_rivals(name: str, graph: Any, train: np.ndarray, python: str) -> Iterator[dict[str, dict[str, Path]]]:
    """Quantize with the rivals' defaults; yield the files by rival and backend. A rival that fails has none."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._images = iter(train)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self._images, None)
            return None if image is None else {"images": image[None]}

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        source, images = folder / name, folder / "train.npy"
        onnx.save(graph, source)
        np.save(images, train)
        made: dict[str, dict[str, Path]] = {}
        try:
            quant_pre_process(source, folder / "pre.onnx")
            quantize_static(folder / "pre.onnx", folder / "ort.onnx", Reader())
            made["ONNX Runtime"] = {"onnxruntime": folder / "ort.onnx", "openvino": folder / "ort.onnx"}
        except Exception as error:
            print(f"{name}: quantize_static: {error}", file=sys.stderr)
        for backend, suffix in (("onnxruntime", "onnx"), ("openvino", "xml")):
            target = folder / f"nncf.{suffix}"
            command = [python, __file__, "nncf", str(source), str(images), str(target)]
            if subprocess.run(command, stdout=subprocess.DEVNULL).returncode == 0:
                made.setdefault("NNCF", {})[backend] = target
        yield made


def quantize_with_nncf(source: Path, images: Path, target: Path) -> None:
    """Quantize by NNCF's default, as an ONNX file or as OpenVINO's own format; runs in the rivals' environment."""
    import nncf

    train = np.load(images)
    if target.suffix == ".onnx":
        import onnx

        dataset = nncf.Dataset([{"images": image[None]} for image in train])
        onnx.save(nncf.quantize(onnx.load(source), dataset), target)
        return
    import openvino

    model = openvino.Core().read_model(source)
    model.reshape([1, 3, 224, 224])
    openvino.save_model(nncf.quantize(model, nncf.Dataset([image[None] for image in train])), target)


def table(records: Path) -> None:
    """Print the records as Markdown."""
    rows = [Record(**json.loads(line)) for line in records.read_text().splitlines()]
    heads = ["network", "backend", "precision", "median, ms", "over a bare loop", "INT8 / FP32", "agreement",
             "NNCF's default: agreement, ours / its latency", "ONNX Runtime's default: the same"]  # fmt: skip
    print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
    for row in rows:
        if row.reason is not None:
            print(f"| {row.network} | {row.backend} | {row.precision} | {row.reason} |" + " |" * (len(heads) - 4))
            continue
        rivals = [(row.rivals or {}).get(name) for name in ("NNCF", "ONNX Runtime")]
        figures = [
            *(
                ("" if value is None else f"{value:.3g}")
                for value in (row.median_ms, row.over_loop, row.int8_over_fp32)
            ),
            "" if row.agreement is None else f"{row.agreement:.1%}",
            *("" if rival is None else f"{rival[0]:.1%}, {rival[1]:.2f}" for rival in rivals),
        ]
        print(f"| {row.network} | {row.backend} | {row.precision} | {' | '.join(figures)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["export", "measure", "table", "nncf", "open"])
    parser.add_argument("paths", type=Path, nargs="+")
    parser.add_argument("--rivals", help="Python of an environment with NNCF.")
    arguments = parser.parse_args()
    if arguments.action == "nncf":
        quantize_with_nncf(*arguments.paths)
    elif arguments.action == "open":  # in a process of its own: OpenVINO crashes on a DenseNet of ONNX Runtime's
        with opened(str(arguments.paths[0]), arguments.paths[1]):
            pass
    elif arguments.action == "export":
        export(*arguments.paths)
    elif arguments.action == "table":
        table(*arguments.paths)
    else:
        folder, photos, records, *names = arguments.paths
        train, test = load(photos, "train"), load(photos, "test")
        for path in [folder / f"{name}.onnx" for name in names] or sorted(folder.glob("*.onnx")):
            with records.open("a") as file:
                for record in measure(path, train, test, arguments.rivals):
                    file.write(json.dumps(asdict(record)) + "\n")
                    file.flush()


if __name__ == "__main__":
    main()
