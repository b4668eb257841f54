"""A network as a cached artifact that a runtime opens. Every fp32, bf16 or fp16 artifact is checked against PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mbbench import cache
from mbbench.backend import EXPORTED_FORMATS, Artifact, Converter, Dialect, Format
from mbbench.errors import BackendError, RequirementError
from mbbench.result import ArtifactInfo
from mbbench.spec import ModelSpec, Precision, content_key

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from numpy.typing import NDArray
    from torch import nn

_EXPORTER_VERSION = 4  # raise it when this module writes other files from the same input
# Allowed error, as a share of the largest logit. bf16 has 8 significant bits, fp16 has 11; errors grow over 28 layers.
_TOLERANCES: dict[Dialect, float] = {"fp32": 1e-3, "fp16": 1e-2, "bf16": 5e-2}
_CHECKED_IMAGES = 2


@dataclass(frozen=True, slots=True)
class Exported:
    """An artifact on disk, and what the record stores about it."""

    path: Path
    info: ArtifactInfo

    def artifact(self, spec: ModelSpec, batch: int, precision: Precision = "fp32") -> Artifact:
        """Return what `Backend.open` takes, to run in `precision` and tuned for `batch` images a call."""
        return Artifact(
            path=self.path,
            format=self.info.format,
            precision=precision,
            dialect=self.info.dialect,  # type: ignore[arg-type]
            spec=spec,
            batch=batch,
            sha256=self.info.sha256,
        )


def export(
    spec: ModelSpec, weights_key: str, format: Format, build: Callable[[], nn.Module], dialect: Dialect = "fp32"
) -> Exported:
    """Write the module that `build()` returns, or find its artifact in the cache.

    `weights_key` identifies the module's weights. `dialect` is fp32, bf16 or fp16; input and output are fp32 in all
    three. Raises `RequirementError` if the file, run by its format's reference implementation, does not give PyTorch's
    logits, and `BackendError` if mbbench does not write `format`.
    """
    _require_exported(format)
    tools = [metadata.version(name) for name in ("torch", "onnx", "onnxscript")]

    def write(path: Path) -> float:
        import onnx
        import torch

        from mbbench.graphs.cast import cast
        from mbbench.graphs.onnx import to_onnx
        from mbbench.models import fold_batch_norm

        module = build()
        graph = to_onnx(fold_batch_norm(module), spec.resolution)
        onnx.save(cast(graph, dialect) if dialect in ("bf16", "fp16") else graph, path)
        images = torch.rand((_CHECKED_IMAGES, 3, *spec.size), generator=torch.Generator().manual_seed(0))
        images = images * 2 - 1
        return _check_parity(module, images, _run_onnx(path, images.numpy()), _TOLERANCES[dialect])

    return _cached(content_key(spec, weights_key, format, dialect, tools, _EXPORTER_VERSION), format, dialect, write)


def export_quantized(graph: Callable[[], onnx.ModelProto], key: str, format: Format, dialect: Dialect) -> Exported:
    """Write the Q/DQ graph that `graph()` returns, or find its artifact in the cache.

    `key` identifies everything that the graph depends on except `dialect`. Raises `BackendError` if mbbench does not
    write `format`.
    """
    _require_exported(format)

    def write(path: Path) -> None:
        import onnx

        onnx.save(graph(), path)

    return _cached(content_key(key, format, dialect, _EXPORTER_VERSION), format, dialect, write)


def convert(artifact: Artifact, converter: Converter) -> Exported:
    """Convert `artifact` for the backend, or find the converted file in the cache. Raises `BackendError`."""

    def write(path: Path) -> None:
        converter.convert(artifact, path)

    source = (artifact.sha256, artifact.precision, artifact.batch, artifact.dialect)
    key = content_key(source, dict(converter.tools()), type(converter).__qualname__, _EXPORTER_VERSION)
    return _cached(key, converter.makes, artifact.dialect, write)


def _require_exported(format: Format) -> None:
    """Raise `BackendError` if mbbench does not write `format`, which a third party's backend may name."""
    if format not in EXPORTED_FORMATS:
        raise BackendError(
            f"mbbench does not export {format!r}, the backend's first format",
            f"report this to its author: the first of `formats` must be one of {', '.join(EXPORTED_FORMATS)}",
        )


def _cached(key: str, format: Format, dialect: Dialect, write: Callable[[Path], float | None]) -> Exported:
    """Return the cached artifact of `key`; make it with `write` if it is missing or damaged.

    `write` returns the largest difference of its logits from PyTorch's, or None if they were not compared.
    """
    path = cache.root() / "artifacts" / f"{key}.{format}"
    info_path = path.with_name(f"{path.name}.json")  # not `with_suffix`: a converter's format may be json
    if path.exists() and info_path.exists():
        info = msgspec.json.decode(info_path.read_bytes(), type=ArtifactInfo)
        if info.sha256 == cache.sha256_of(path):  # a damaged file must not be measured under the old hash
            return Exported(path, info)
    with cache.atomic(path) as temporary:
        error = write(temporary)
        sha256 = cache.sha256_of(temporary)
    info = ArtifactInfo(
        format=format, dialect=dialect, size_bytes=path.stat().st_size, sha256=sha256, max_abs_error=error
    )
    with cache.atomic(info_path) as temporary:
        temporary.write_bytes(msgspec.json.encode(info))
    return Exported(path, info)


def _check_parity(module: nn.Module, images: object, logits: NDArray[np.float32], tolerance: float) -> float:
    """Return the largest absolute error of `logits`. Raises `RequirementError` if it exceeds the tolerance."""
    import numpy as np
    import torch

    with torch.inference_mode():
        expected = module(images).numpy()
    error = float(np.abs(logits - expected).max())
    allowed = tolerance * float(np.abs(expected).max())
    if not error <= allowed:  # also true for NaN
        raise RequirementError(
            f"the artifact's logits differ from PyTorch's by up to {error:.3g} (allowed {allowed:.3g})",
            "check the weights for NaN or huge values; nothing was exported",
        )
    return error


def _run_onnx(path: Path, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the logits by ONNX's reference implementation, with our MaxPool and LRN.

    Its own MaxPool takes 50 s for GoogLeNet; its own LRN normalizes only as many channels as there are images.
    """
    import numpy as np
    import onnx
    from onnx.reference import ReferenceEvaluator
    from onnx.reference.op_run import OpRun

    class MaxPool(OpRun):
        def _run(
            self,
            images: NDArray[np.float32],
            *,
            kernel_shape: Sequence[int],
            strides: Sequence[int],
            pads: Sequence[int],
            dilations: Sequence[int] | None,
            ceil_mode: int,
            **_: object,
        ) -> tuple[NDArray[np.float32]]:
            """Pool (N, C, H, W) to (N, C, H', W'). With `ceil_mode` (GoogLeNet), windows may extend past the edge."""
            top, left, bottom, right = pads
            extra = [stride - 1 if ceil_mode else 0 for stride in strides]
            padding = ((0, 0), (0, 0), (top, bottom + extra[0]), (left, right + extra[1]))
            padded = np.pad(images, padding, constant_values=-np.inf)
            steps = dilations or (1, 1)
            extent = tuple((size - 1) * step + 1 for size, step in zip(kernel_shape, steps, strict=True))
            windows = np.lib.stride_tricks.sliding_window_view(padded, extent, axis=(2, 3))
            return (windows[:, :, :: strides[0], :: strides[1], :: steps[0], :: steps[1]].max(axis=(-2, -1)),)

    class LRN(OpRun):
        def _run(
            self, images: NDArray[np.float32], *, alpha: float, beta: float, bias: float, size: int
        ) -> tuple[NDArray[np.float32]]:
            """Normalize (N, C, H, W) by the squares of the `size` channels around each."""
            before = (size - 1) // 2
            squares = np.pad(images**2, ((0, 0), (before, size - 1 - before), (0, 0), (0, 0)))
            sums = np.lib.stride_tricks.sliding_window_view(squares, size, axis=1).sum(axis=-1)
            return ((images / (bias + alpha / size * sums) ** beta).astype(np.float32),)

    evaluator = ReferenceEvaluator(onnx.load(path), new_ops=[MaxPool, LRN])
    logits: NDArray[np.float32] = evaluator.run(None, {"images": images})[0]  # type: ignore[index]
    return logits
