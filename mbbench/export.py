"""A trained module as a file a runtime opens. Its outputs are checked against PyTorch's here, always."""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mbbench import cache
from mbbench.backend import Artifact, Format
from mbbench.errors import ParityError
from mbbench.result import ArtifactInfo
from mbbench.spec import ModelSpec, content_key

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

_EXPORTER = 1  # raise it when this file writes something else for the same input
_OPSET = 18
_TOLERANCE = 1e-3  # of the largest logit
_EXAMPLES = 2


@dataclass(frozen=True, slots=True)
class Exported:
    path: Path
    info: ArtifactInfo

    def artifact(self, spec: ModelSpec, batch: int) -> Artifact:
        return Artifact(
            path=self.path,
            format=self.info.format,  # type: ignore[arg-type]
            precision="fp32",
            spec=spec,
            batch=batch,
            sha256=self.info.sha256,
        )


def export(spec: ModelSpec, weights_key: str, format: Format, build: Callable[[], nn.Module]) -> Exported:
    """Write the module that `build()` returns (its weights are named by `weights_key`), or find it in the cache.

    Raises `ParityError` if the file, run by its format's reference implementation, does not give PyTorch's logits.
    """
    tools = [metadata.version(name) for name in ("torch", "onnx", "onnxscript", "safetensors")]
    key = content_key(spec, weights_key, format, tools, _EXPORTER)
    path = cache.root() / "artifacts" / f"{key}.{format}"
    info_path = path.with_suffix(".json")
    if path.exists() and info_path.exists():
        info = msgspec.json.decode(info_path.read_bytes(), type=ArtifactInfo)
        if info.size_bytes == path.stat().st_size:
            return Exported(path, info)

    import torch

    from mbbench.models import fold_batch_norm

    module = build()
    folded = fold_batch_norm(module)
    images = torch.rand((_EXAMPLES, 3, spec.resolution, spec.resolution), generator=torch.Generator().manual_seed(0))
    images = images * 2 - 1
    with cache.atomic(path) as temporary:
        if format == "onnx":
            _write_onnx(folded, images, temporary)
            logits = _run_onnx(temporary, images.numpy())
        else:
            _write_safetensors(folded, temporary)
            logits = _run_safetensors(temporary, spec, images)
        error = _parity(module, images, logits)
        content = hashlib.file_digest(temporary.open("rb"), "sha256").hexdigest()
    info = ArtifactInfo(format=format, size_bytes=path.stat().st_size, sha256=content, max_abs_error=error)
    with cache.atomic(info_path) as temporary:
        temporary.write_bytes(msgspec.json.encode(info))
    return Exported(path, info)


def _parity(module: nn.Module, images: object, logits: NDArray[np.float32]) -> float:
    import numpy as np
    import torch

    with torch.inference_mode():
        expected = module(images).numpy()
    error = float(np.abs(logits - expected).max())
    allowed = _TOLERANCE * float(np.abs(expected).max())
    if not error <= allowed:  # also true for NaN
        raise ParityError(
            f"the exported model's logits differ from PyTorch's by up to {error:.3g} (allowed {allowed:.3g})",
            "nothing was exported; check the weights for NaN or huge values",
        )
    return error


def _write_onnx(module: nn.Module, images: object, path: Path) -> None:
    import torch

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter deprecates its own insides
        program = torch.onnx.export(
            module,
            (images,),
            dynamo=True,
            verbose=False,
            opset_version=_OPSET,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("N")},),
        )
    assert program is not None
    program.save(str(path), external_data=False)


def _run_onnx(path: Path, images: NDArray[np.float32]) -> NDArray[np.float32]:
    import onnx
    from onnx.reference import ReferenceEvaluator

    logits: NDArray[np.float32] = ReferenceEvaluator(onnx.load(path)).run(None, {"images": images})[0]  # type: ignore[index]
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
