"""Networks that are ONNX files. Their normal form is kept in the cache, named by its SHA-256, as `ModelSpec.sha256`."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mbbench import cache
from mbbench.errors import UsageError
from mbbench.spec import FILE_FAMILY, ModelSpec, content_key

if TYPE_CHECKING:
    import onnx

    from mbbench.models.cost import Cost

SUFFIX = ".onnx"
_READER = 1  # increase it when the normal form of the same file changes


@dataclass(frozen=True, slots=True)
class _Imported:
    """What is known about a file's normal form. `is_integer`: the file takes uint8 pixels, and normalizes them itself."""

    sha256: str
    height: int
    width: int
    classes: int
    is_integer: bool


def spec_of(path: Path, resolution: int | None = None, logits: str | None = None) -> ModelSpec:
    """Return the network in an ONNX file, whose normal form is then in the cache.

    `resolution` is the side of its input in pixels, for a file that leaves it open; `logits` names the output if there
    are several. Raises `UsageError` if the file is not an image classifier (`graphs.read`), or has another input.
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
        with cache.atomic(_info_path(imported.sha256)) as temporary:
            temporary.write_bytes(msgspec.json.encode(imported))
    return ModelSpec(
        FILE_FAMILY, resolution=imported.height, classes=imported.classes, name=path.stem, sha256=imported.sha256
    )


def _import(path: Path, resolution: int | None, logits: str | None) -> _Imported:
    import hashlib

    import onnx

    from mbbench.graphs.normalize import normalize
    from mbbench.graphs.read import load, signature

    model = load(path)
    given = signature(onnx.shape_inference.infer_shapes(model), path, logits)
    height, width = given.height or resolution, given.width or resolution
    if height is None or width is None:
        raise UsageError(f"{path} leaves the size of its input open", "give --res")
    if resolution not in (None, height):
        raise UsageError(f"{path} takes images of {width}x{height}, not {resolution}x{resolution}", "omit --res")
    if height != width:
        raise UsageError(f"{path} takes images of {width}x{height}", "give a network with a square input")
    content = normalize(model, given, height, width).SerializeToString(deterministic=True)
    sha256 = hashlib.sha256(content).hexdigest()
    with cache.atomic(_path(sha256)) as temporary:
        temporary.write_bytes(content)
    return _Imported(sha256, height, width, given.classes, given.is_integer)


def graph(spec: ModelSpec) -> onnx.ModelProto:
    """Return the normal form of a file's network. Raises `UsageError` if this machine's cache does not have it."""
    import onnx

    path = _path(spec.sha256)
    if not path.exists():
        raise UsageError(
            f"the network {spec.name} is not in the cache", f"run it once with --model {spec.name}{SUFFIX}"
        )
    return onnx.load(path)


def is_integer(spec: ModelSpec) -> bool:
    """Return whether a file's network normalizes uint8 pixels itself. Raises `UsageError` as `graph` does."""
    path = _info_path(spec.sha256)
    if not path.exists():
        graph(spec)
        return False
    return msgspec.json.decode(path.read_bytes(), type=_Imported).is_integer


def cost(spec: ModelSpec) -> Cost:
    """Return the cost of a file's network. Raises `UsageError` as `graph` does."""
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
    return cache.root() / "networks" / f"{sha256}{SUFFIX}"


def _info_path(sha256: str) -> Path:
    return _path(sha256).with_suffix(".info.json")
