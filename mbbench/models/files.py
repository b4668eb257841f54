"""Networks that are ONNX files. Their normal form is kept in the cache, named by its SHA-256, as `ModelSpec.sha256`."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mbbench import cache
from mbbench.errors import UsageError
from mbbench.spec import FILE_SUFFIX, ModelSpec, content_key

if TYPE_CHECKING:
    import onnx

    from mbbench.models.cost import Cost

_READER = 2  # increase it when the normal form of the same file changes


@dataclass(frozen=True, slots=True)
class _Imported:
    """What is known about a file's normal form. `family`: a key of `FILE_FAMILIES`."""

    sha256: str
    family: str
    resolution: int
    classes: int


def spec_of(path: Path, resolution: int | None = None, logits: str | None = None) -> ModelSpec:
    """Return the network in an ONNX file, whose normal form is then in the cache.

    `resolution` is the side of its input in pixels if the file leaves it open; `logits` names the output if there are
    several. Raises `UsageError` if the file is not an image classifier (`graphs.read`), or its input is not square.
    """
    tools = [metadata.version(name) for name in ("onnx", "onnxslim")]
    key = content_key("network", _digest(path), resolution, logits, tools, _READER)
    record = cache.root() / "networks" / f"{key}.json"
    if record.exists():
        imported = msgspec.json.decode(record.read_bytes(), type=_Imported)
        if not _path(imported.sha256).exists():
            record.unlink()
            return spec_of(path, resolution, logits)
    else:
        imported = _import(path, resolution, logits)
        with cache.atomic(record) as temporary:
            temporary.write_bytes(msgspec.json.encode(imported))
    return ModelSpec(
        imported.family,
        resolution=imported.resolution,
        classes=imported.classes,
        name=path.name.removesuffix(FILE_SUFFIX),
        sha256=imported.sha256,
    )


def _import(path: Path, resolution: int | None, logits: str | None) -> _Imported:
    import hashlib

    import onnx

    from mbbench.graphs.normalize import normalize
    from mbbench.graphs.read import load, signature

    model = load(path)
    source = signature(onnx.shape_inference.infer_shapes(model), path, logits)
    height, width = source.height or resolution, source.width or resolution
    if height is None or width is None:
        raise UsageError(f"{path} leaves the size of its input open", "give --res")
    if height != width:
        raise UsageError(f"{path} takes images of {width}x{height}", "give a network with a square input")
    content = normalize(model, source, height, width).SerializeToString(deterministic=True)
    sha256 = hashlib.sha256(content).hexdigest()
    with cache.atomic(_path(sha256)) as temporary:
        temporary.write_bytes(content)
    return _Imported(sha256, "onnx-uint8" if source.is_integer else "onnx", height, source.classes)


def count(path: Path, logits: str | None = None) -> tuple[ModelSpec, Cost]:
    """Return the network in an ONNX file, as it is, and its cost. Its weights are not used, and nothing is cached.

    Raises `UsageError` if the file is not an image classifier, or leaves a shape open.
    """
    from mbbench.graphs.read import load, signature
    from mbbench.models.graph_cost import count_graph

    model = load(path)
    source = signature(model, path, logits)
    try:
        counted = count_graph(model)
    except ValueError as error:
        raise UsageError(f"{path} cannot be counted: {error}", "export it for images of one size") from error
    name = path.name.removesuffix(FILE_SUFFIX)
    return ModelSpec("onnx", resolution=source.height or 1, classes=source.classes, name=name), counted


def is_known(spec: ModelSpec) -> bool:
    """Return whether this machine's cache has a file's normal form."""
    return _path(spec.sha256).exists()


def path_of(spec: ModelSpec) -> Path:
    """Return the path of a file's normal form. Raises `UsageError` if this machine's cache does not have it."""
    path = _path(spec.sha256)
    if not is_known(spec):
        raise UsageError(f"{spec.name} is not in this machine's cache", f"run it with --model {spec.name}{FILE_SUFFIX}")
    return path


def graph(spec: ModelSpec) -> onnx.ModelProto:
    """Return the normal form of a file's network. Raises `UsageError` as `path_of` does."""
    import onnx

    return onnx.load(path_of(spec))


def cost(spec: ModelSpec) -> Cost:
    """Return the cost of a file's network. Raises `UsageError` as `path_of` does."""
    from mbbench.models.graph_cost import count_graph

    return count_graph(graph(spec))


def _digest(path: Path) -> str:
    """Return the SHA-256 of the file and of the files next to it that may hold its tensors."""
    try:
        digests = [cache.sha256_of(path)]
        digests += [cache.sha256_of(data) for data in sorted(path.parent.glob(f"{path.name}*data"))]
    except OSError as error:
        raise UsageError(f"cannot read {path} ({error.strerror})", "give the path of an ONNX file") from error
    return content_key(*digests)


def _path(sha256: str) -> Path:
    return cache.root() / "networks" / f"{sha256}{FILE_SUFFIX}"
