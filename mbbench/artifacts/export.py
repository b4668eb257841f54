"""A trained module as a file a runtime opens. Its outputs are checked against PyTorch's here, always."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mbbench import cache
from mbbench.backend import Artifact, Converter, Dialect, Format
from mbbench.errors import RequirementError
from mbbench.result import ArtifactInfo
from mbbench.spec import ModelSpec, Precision, content_key

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from numpy.typing import NDArray
    from torch import nn

_EXPORTER = 2  # raise it when this file writes something else for the same input
# Of the largest logit. bf16 keeps 8 bits of the mantissa, fp16 11; over 28 layers either loses some more.
_TOLERANCES: dict[Dialect, float] = {"fp32": 1e-3, "fp16": 1e-2, "bf16": 5e-2}
_EXAMPLES = 2


@dataclass(frozen=True, slots=True)
class Exported:
    path: Path
    info: ArtifactInfo

    def artifact(self, spec: ModelSpec, batch: int, precision: Precision = "fp32") -> Artifact:
        return Artifact(
            path=self.path,
            format=self.info.format,  # type: ignore[arg-type]
            precision=precision,
            dialect=self.info.dialect,  # type: ignore[arg-type]
            spec=spec,
            batch=batch,
            sha256=self.info.sha256,
        )


def export(
    spec: ModelSpec, weights_key: str, format: Format, build: Callable[[], nn.Module], dialect: Dialect = "fp32"
) -> Exported:
    """Write the module that `build()` returns (its weights are named by `weights_key`), or find it in the cache.

    `dialect` may be `bf16` or `fp16` too, whose networks take and give fp32. Raises `RequirementError` if the
    file, run by its format's reference implementation, does not give PyTorch's logits.
    """
    tools = [metadata.version(name) for name in ("torch", "onnx", "onnxscript", "safetensors")]

    def write(path: Path) -> float:
        import onnx
        import torch

        from mbbench.graphs.onnx import to_onnx
        from mbbench.models import fold_batch_norm

        module = build()
        folded = fold_batch_norm(module)
        images = torch.rand(
            (_EXAMPLES, 3, spec.resolution, spec.resolution), generator=torch.Generator().manual_seed(0)
        )
        images = images * 2 - 1
        if format == "onnx":
            onnx.save(to_onnx(_typed(folded, dialect), spec.resolution), path)
            logits = _run_onnx(path, images.numpy())
        else:
            _write_safetensors(folded, path)
            logits = _run_safetensors(path, spec, images)
        return _parity(module, images, logits, _TOLERANCES[dialect])

    return _remember(content_key(spec, weights_key, format, dialect, tools, _EXPORTER), format, dialect, write)


def export_quantized(graph: Callable[[], onnx.ModelProto], key: str, format: Format, dialect: Dialect) -> Exported:
    """Write the Q/DQ graph that `graph()` returns, or find it under `key`, which names all that it is made of."""

    def write(path: Path) -> None:
        import onnx
        from safetensors.numpy import save_file

        from mbbench.graphs.tensors import parameters

        if format == "onnx":
            onnx.save(graph(), path)
        else:
            save_file(parameters(graph()), path)

    return _remember(content_key(key, format, dialect, _EXPORTER), format, dialect, write)


def convert(artifact: Artifact, converter: Converter) -> Exported:
    """What the backend makes of `artifact`, or what it made before. Raises `BackendError`."""

    def write(path: Path) -> None:
        converter.convert(artifact, path)

    what = (artifact.sha256, artifact.precision, artifact.batch, artifact.dialect)
    key = content_key(what, dict(converter.tools()), type(converter).__qualname__, _EXPORTER)
    return _remember(key, converter.makes, artifact.dialect, write)


def _remember(key: str, format: Format, dialect: Dialect, write: Callable[[Path], float | None]) -> Exported:
    """The file called `key`, whole; `write` makes it and returns by how much its logits differ from PyTorch's."""
    path = cache.root() / "artifacts" / f"{key}.{format}"
    info_path = path.with_suffix(".json")
    if path.exists() and info_path.exists():
        info = msgspec.json.decode(info_path.read_bytes(), type=ArtifactInfo)
        if info.size_bytes == path.stat().st_size:
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


def _typed(folded: nn.Module, dialect: Dialect) -> nn.Module:
    """The module with everything but its input and output in the dialect's type."""
    if dialect == "fp32":
        return folded
    import torch

    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[dialect]
    folded.to(dtype)
    folded.register_forward_pre_hook(lambda _, given: (given[0].to(dtype),))
    folded.register_forward_hook(lambda _, __, logits: logits.float())
    return folded


def _parity(module: nn.Module, images: object, logits: NDArray[np.float32], tolerance: float) -> float:
    import numpy as np
    import torch

    with torch.inference_mode():
        expected = module(images).numpy()
    error = float(np.abs(logits - expected).max())
    allowed = tolerance * float(np.abs(expected).max())
    if not error <= allowed:  # also true for NaN
        raise RequirementError(
            f"the exported model's logits differ from PyTorch's by up to {error:.3g} (allowed {allowed:.3g})",
            "nothing was exported; check the weights for NaN or huge values",
        )
    return error


def _run_onnx(path: Path, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """The logits by ONNX's reference implementation, but for its MaxPool: that loops over pixels, and takes minutes."""
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
            ceil_mode: int,
            **_: object,
        ) -> tuple[NDArray[np.float32]]:
            """(N, C, H, W) to (N, C, H', W'). With `ceil_mode`, as in GoogLeNet, a window may hang over the edge."""
            top, left, bottom, right = pads
            over = [stride - 1 if ceil_mode else 0 for stride in strides]
            padding = ((0, 0), (0, 0), (top, bottom + over[0]), (left, right + over[1]))
            padded = np.pad(images, padding, constant_values=-np.inf)
            windows = np.lib.stride_tricks.sliding_window_view(padded, kernel_shape, axis=(2, 3))
            return (windows[:, :, :: strides[0], :: strides[1]].max(axis=(-2, -1)),)

    evaluator = ReferenceEvaluator(onnx.load(path), new_ops=[MaxPool])
    logits: NDArray[np.float32] = evaluator.run(None, {"images": images})[0]  # type: ignore[index]
    return logits


def _write_safetensors(module: nn.Module, path: Path) -> None:
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous() for name, tensor in module.state_dict().items()}, path)


def _run_safetensors(path: Path, spec: ModelSpec, images: object) -> NDArray[np.float32]:
    import torch
    from safetensors.torch import load_file

    from mbbench.models import build, fold_batch_norm, load_parameters

    module = fold_batch_norm(build(spec))
    load_parameters(module, load_file(path), str(path))
    with torch.inference_mode():
        logits: NDArray[np.float32] = module(images).numpy()
    return logits
