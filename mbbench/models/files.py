"""Networks that are ONNX files. Their normal form is kept in the cache, named by its SHA-256, as `ModelSpec.sha256`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mbbench import cache
from mbbench.errors import UsageError, first_line
from mbbench.families import FILE_SUFFIX
from mbbench.spec import ModelSpec, Preprocessing, Size, content_key

if TYPE_CHECKING:
    import onnx

    from mbbench.models.cost import Cost

_READER = 7  # increase it when the normal form of the same file changes
_BATCH = 3  # of images, to check that a network takes more than one
_SAME = 1e-3  # largest difference of the same image's logits in two batches, relative to the largest logit
_ANY_BATCH = "export it for any batch size, without operations across the batch"


Made = tuple[bytes, ModelSpec, Preprocessing | None]


@dataclass(frozen=True, slots=True)
class _Record:
    """What is known about a network beside its normal form. `preprocessing`: None: the default of `spec.family`."""

    spec: ModelSpec
    preprocessing: Preprocessing | None


def spec_of(path: Path, resolution: int | None = None, logits: str | None = None) -> ModelSpec:
    """Return the network in an ONNX file, whose normal form is then in the cache.

    `resolution` is the side of its input in pixels if the file leaves it open; `logits` names the output if there are
    several. Raises `UsageError` if the file is not an image classifier (`graphs.read`).
    """
    key = content_key("file", digest(path), resolution, logits, tools())
    return remember(key, path.name.removesuffix(FILE_SUFFIX), lambda: _read(path, resolution, logits))


def remember(key: str, name: str, make: Callable[[], Made]) -> ModelSpec:
    """Return the network that `make` makes, called `name`, from the cache if it is there.

    `key` identifies everything that `make` depends on. It returns the network's normal form, its spec without name and
    hash, and its preprocessing. Raises `UsageError` if the network uses an operator that is not supported.
    """
    record = cache.root() / "networks" / f"{key}.json"
    if record.exists():
        spec = msgspec.json.decode(record.read_bytes(), type=_Record).spec
        if is_known(spec):
            return replace(spec, name=name)
    content, spec, preprocessing = make()
    _require_supported(content, name, spec)
    spec = replace(spec, name=name, sha256=hashlib.sha256(content).hexdigest())
    known = msgspec.json.encode(_Record(spec, preprocessing))
    for path, data in ((_path(spec.sha256), content), (_record_path(spec.sha256), known), (record, known)):
        with cache.atomic(path) as temporary:
            temporary.write_bytes(data)
    return spec


def _require_supported(content: bytes, name: str, spec: ModelSpec) -> None:
    """Raise `UsageError` if PyTorch, the reference of all runtimes, cannot compute the network for any batch size.

    Three images of noise are computed together and one by one: a graph that was exported for one image may mix them up.
    """
    import onnx
    import torch

    from mbbench.graphs.fx import to_module
    from mbbench.models.graph_cost import count_graph

    model = onnx.load_from_string(content)
    if not model.graph.input:
        raise UsageError(f"{name} computes its logits without the images", "export it again")
    try:
        module = to_module(model)
        count_graph(model)
    except ValueError as error:
        raise UsageError(f"{name} cannot be measured: {error}", "export it with other operators") from error
    except (LookupError, TypeError) as error:
        cause = f"an operator has other inputs or attributes than usual ({first_line(error)})"
        raise UsageError(f"{name} cannot be measured: {cause}", "export it with other operators") from error
    images = torch.rand(_BATCH, 3, *spec.size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():  # and `forward`, since a call of the module prints its error
        try:
            alone = torch.cat([module.forward(image[None]) for image in images])
        except (RuntimeError, IndexError) as error:
            cause = f"{name} cannot be computed for one image ({first_line(error)})"
            raise UsageError(cause, "export it for any batch size, with weights that fit their layers") from error
        try:
            together = module.forward(images)
        except RuntimeError:
            together = torch.empty(0)
    if together.shape != (_BATCH, spec.classes) or alone.shape != together.shape:
        raise UsageError(f"{name} computes only the batch size that it was exported for", _ANY_BATCH)
    if float((together - alone).abs().max()) > _SAME * float(alone.abs().max()):
        raise UsageError(f"{name} mixes the images of a batch: each changes the others' logits", _ANY_BATCH)


def preprocessing_of(spec: ModelSpec) -> Preprocessing | None:
    """Return the preprocessing that a network's source names, or None."""
    path = _record_path(spec.sha256)
    return msgspec.json.decode(path.read_bytes(), type=_Record).preprocessing if path.exists() else None


def tools() -> list[str]:
    """Return the versions of what makes normal forms."""
    return [*(metadata.version(name) for name in ("onnx", "onnxslim")), str(_READER)]


def _read(path: Path, resolution: int | None, logits: str | None) -> Made:
    import onnx

    from mbbench.graphs.normalize import normalize
    from mbbench.graphs.read import load, signature

    model = load(path)
    source = signature(onnx.shape_inference.infer_shapes(model), path, logits)
    height, width = source.height or resolution, source.width or resolution
    if height is None or width is None:
        raise UsageError(f"{path} leaves the size of its input open", "give --res")
    content = normalize(model, source, height, width).SerializeToString(deterministic=True)
    family = "onnx-uint8" if source.is_integer else "onnx"
    return content, _spec(family, (height, width), source.classes), None


def _spec(family: str, size: Size, classes: int, name: str = "") -> ModelSpec:
    height, width = size
    return ModelSpec(family, resolution=height, classes=classes, name=name, width=width if width != height else None)


def count(path: Path, resolution: int | None = None) -> tuple[ModelSpec, Cost]:
    """Return the network in an ONNX file and its cost. A file whose shapes are computed is brought to its normal form.

    Raises `UsageError` as `spec_of` does.
    """
    from mbbench.graphs.read import load, signature
    from mbbench.models.graph_cost import count_graph

    model = load(path)
    source = signature(model, path)
    try:
        counted = count_graph(model)
    except ValueError:
        spec = spec_of(path, resolution)
        return spec, cost(spec)
    name = path.name.removesuffix(FILE_SUFFIX)
    return _spec("onnx", (source.height or 1, source.width or 1), source.classes, name), counted


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
    """Return the cost of a file's network, or the stated one. Raises `UsageError` as `path_of` does."""
    from mbbench.models.cost import Cost
    from mbbench.models.graph_cost import count_graph

    stated = _cost_path(spec.sha256)
    if not is_known(spec) and stated.exists():
        return msgspec.json.decode(stated.read_bytes(), type=Cost)
    return count_graph(graph(spec))


def state_cost(spec: ModelSpec, stated: Cost) -> None:
    """Store what an artifact's sidecar states about a network whose normal form is not here; never prefer it."""
    if not is_known(spec):
        with cache.atomic(_cost_path(spec.sha256)) as temporary:
            temporary.write_bytes(msgspec.json.encode(stated))


def digest(path: Path) -> str:
    """Return the SHA-256 of the file and of the files next to it that may hold its tensors."""
    try:
        digests = [cache.sha256_of(path)]
        digests += [cache.sha256_of(data) for data in sorted(path.parent.glob(f"{path.name}*data"))]
    except OSError as error:
        raise UsageError(f"cannot read {path} ({error.strerror})", "give the path of a file") from error
    return content_key(*digests)


def _record_path(sha256: str) -> Path:
    return cache.root() / "networks" / f"{sha256}.json"


def _cost_path(sha256: str) -> Path:
    return cache.root() / "networks" / f"{sha256}.cost.json"


def _path(sha256: str) -> Path:
    return cache.root() / "networks" / f"{sha256}{FILE_SUFFIX}"
