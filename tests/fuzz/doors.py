"""The doors through which files enter mbbench: for each format, an intact file and the function that reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Door:
    """`make` writes an intact file into a folder and returns the paths that are mutated, in turn; `read` reads one."""

    make: Callable[[Path], list[Path]]
    read: Callable[[Path], object]


def _make_pytorch(folder: Path) -> list[Path]:
    import torch

    state = {"conv.weight": torch.ones(3, 4), "half": torch.ones(5).half(), "bn.num_batches_tracked": torch.tensor(3)}
    torch.save({"state_dict": state, "epoch": 3}, folder / "new.pt")
    torch.save(state, folder / "old.pth", _use_new_zipfile_serialization=False)
    return [folder / "new.pt", folder / "new.pt", folder / "old.pth"]


def _make_safetensors(folder: Path) -> list[Path]:
    import torch

    from mbbench.weights import checkpoint

    state = {"conv.weight": torch.ones(3, 4), "half": torch.ones(5).half(), "bn.num_batches_tracked": torch.tensor(3)}
    spec = '{"alpha": 0.5, "variant": "standard", "widths": [8, 16]}'
    checkpoint.save(folder / "x.safetensors", state, {"spec": spec})
    return [folder / "x.safetensors"]


def _read_checkpoint(path: Path) -> object:
    from mbbench.weights import checkpoint

    return checkpoint.read(path), checkpoint.read_architecture(path)


def _make_hdf5(folder: Path) -> list[Path]:
    import h5py
    import numpy as np

    with h5py.File(folder / "plain.h5", "w") as file:
        file["conv1/conv1/kernel:0"] = np.ones((3, 3, 3, 4), np.float32)
        file["conv1_bn/gamma"] = np.ones(4, np.float16)
        file["alias"] = h5py.SoftLink("/conv1")
        del file["alias"]
    with h5py.File(folder / "packed.h5", "w") as file:
        group = file.create_group("model_weights")
        group.create_dataset("conv1/kernel", data=np.ones((30, 40), np.float32), chunks=(10, 10), compression="gzip")
    return [folder / "plain.h5", folder / "packed.h5"]


def _read_hdf5(path: Path) -> object:
    from mbbench.weights import importers

    return importers.KINDS["keras"].read(path)


def _make_onnx(folder: Path) -> list[Path]:
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    (folder.parent / "secret").write_bytes(bytes(4096))
    (folder / "link").symlink_to("../secret")
    generator = np.random.default_rng(0)
    shapes = {
        "stem.weight": (8, 3, 3, 3),
        "stem.bias": (8,),
        "dw.weight": (8, 1, 3, 3),
        "fc.weight": (5, 8),
        "fc.bias": (5,),
    }
    weights = {name: generator.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    nodes = [
        helper.make_node(
            "Conv", ["images", "stem.weight", "stem.bias"], ["stem"], "stem", pads=[1] * 4, strides=[2, 2]
        ),
        helper.make_node("Clip", ["stem", "low", "high"], ["stem/act"], "stem/act"),
        helper.make_node("Conv", ["stem/act", "dw.weight"], ["dw"], "dw", pads=[1] * 4, group=8),
        helper.make_node("Add", ["dw", "stem/act"], ["sum"], "sum"),
        helper.make_node("GlobalAveragePool", ["sum"], ["pooled"], "pooled"),
        helper.make_node("Reshape", ["pooled", "shape"], ["flat"], "flat"),
        helper.make_node("Gemm", ["flat", "fc.weight", "fc.bias"], ["logits"], "fc", transB=1),
    ]
    weights |= {"low": np.float32(0), "high": np.float32(6), "shape": np.array([-1, 8])}  # type: ignore[dict-item]
    images = helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["N", 3, 32, 32])
    logits = helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["N", 5])
    constants = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "main", [images], [logits], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), folder / "net.onnx")
    return [folder / "net.onnx"]


def _read_onnx(path: Path) -> object:
    from mbbench.models import files

    return files.spec_of(path, 32), files.count(path, 32)


def _make_sidecar(folder: Path) -> list[Path]:
    import msgspec

    from mbbench import cache
    from mbbench.artifacts.bundle import Sidecar
    from mbbench.result import ArtifactInfo, WeightsInfo
    from mbbench.spec import Cell, ModelSpec

    (folder / "net.onnx").write_bytes(b"an artifact")
    sidecar = Sidecar(
        cell=Cell(model=ModelSpec(alpha=0.25, resolution=32), role="subject", weights="random", backend="onnxruntime",
                  device="cpu"),
        batch=1, device="cpu", weights=WeightsInfo(origin="random", key="aa", trained_on=None),
        artifact=ArtifactInfo(format="onnx", dialect="fp32", size_bytes=11,
                              sha256=cache.sha256_of(folder / "net.onnx"), max_abs_error=1e-6),
        quantization=None, versions={"mbbench": "0.1.0"},
    )  # fmt: skip
    (folder / "net.onnx.json").write_bytes(msgspec.json.format(msgspec.json.encode(sidecar)))
    return [folder / "net.onnx.json"]


def _read_sidecar(path: Path) -> object:
    from mbbench.artifacts import bundle

    return bundle.read(path.with_suffix(""), trust=False)


def _make_profile(folder: Path) -> list[Path]:
    (folder / "x.toml").write_text(
        'description = "all"\nmodel = "mobilenet_v1"\nalpha = [0.5, 1.0]\nres = [128]\nbackend = ["onnxruntime"]\n'
        'precision = "int8"\ndata = "digits"\nimages = 100\nmean = [0.1, 0.2, 0.3]\nbaselines = ["vgg16"]\n'
        "[settings]\nthreads = 2\nmin_s = 0.5\nscenarios = ['server']\n"
    )
    return [folder / "x.toml"]


def _read_profile(path: Path) -> object:
    from mbbench import profile

    parsed = profile.read_profile(str(path))
    return parsed.models, parsed.baseline_families


def _make_images(folder: Path) -> list[Path]:
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    for kind in ("a", "b"):
        (folder / kind).mkdir()
        Image.fromarray(pixels).save(folder / kind / "good.png")
    names = {
        "x.png": "PNG",
        "x.jpg": "JPEG",
        "x.webp": "WEBP",
        "x.bmp": "BMP",
        "x.ppm": "PPM",
        "y.jpg": "GIF",
        "y.png": "TIFF",
    }
    for name, format in names.items():
        Image.fromarray(pixels).save(folder / name, format, **({"progressive": True} if format == "JPEG" else {}))
    return [folder / name for name in names]


def _read_image(path: Path) -> object:
    """Read a folder of two classes, of which the only test image of one is the mutated file."""
    from mbbench import data

    folder = path.parent / f"set of {path.name}"
    for kind in ("a", "b"):
        (folder / "val" / kind).mkdir(parents=True, exist_ok=True)
    (folder / "val" / "a" / path.name).write_bytes(path.read_bytes())
    (folder / "val" / "b" / "good.png").write_bytes((path.parent / "b" / "good.png").read_bytes())
    left = data.load_split(str(folder), (32, 32), "test", skip_broken=True)
    assert left.count + len(left.skipped) == 2
    return data.load_split(str(folder), (32, 32), "test")


def _make_idx(folder: Path) -> list[Path]:
    import gzip

    for prefix, count in (("train", 20), ("t10k", 10)):
        pixels = b"\0\0\x08\x03" + b"".join(size.to_bytes(4, "big") for size in (count, 28, 28)) + bytes(count * 784)
        labels = b"\0\0\x08\x01" + count.to_bytes(4, "big") + bytes(range(10)) * (count // 10)
        (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(pixels))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(labels)
    return [
        folder / name for name in ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte", "train-labels-idx1-ubyte")
    ]


def _read_idx(path: Path) -> object:
    from mbbench import data

    return [data.load_split(f"fashion-mnist:{path.parent}", (32, 32), split) for split in ("test", "train")]


DOORS: Mapping[str, Door] = {
    "pytorch": Door(_make_pytorch, _read_checkpoint),
    "safetensors": Door(_make_safetensors, _read_checkpoint),
    "hdf5": Door(_make_hdf5, _read_hdf5),
    "onnx": Door(_make_onnx, _read_onnx),
    "sidecar": Door(_make_sidecar, _read_sidecar),
    "profile": Door(_make_profile, _read_profile),
    "image": Door(_make_images, _read_image),
    "idx": Door(_make_idx, _read_idx),
}
