"""PyTorch's logits, the reference that every runtime's logits are compared with."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from mbbench import cache
from mbbench.backend import Dialect
from mbbench.compress.search import Quantization
from mbbench.data import Dataset
from mbbench.families import Family
from mbbench.spec import PARITY_IMAGES, Shard, content_key
from mbbench.weights import Weights

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Images per call. A shard that starts at a multiple of it gets the same bits as a run of all images.
BATCH = 32


def logits(
    weights: Weights,
    data: Dataset,
    on_progress: Callable[[int, int], None] | None = None,
    shard: Shard | None = None,
) -> Path:
    """Return the path of a cached .npy file: float32 logits (N, classes) of all images of `data`, or of a shard.

    Eager PyTorch computes them, without folding batch norm.
    """
    name = content_key(weights.info.key, weights.spec, data.key(weights.spec.family), _torch_version())
    if shard is not None:
        name = f"{name}-{shard.start}-{shard.stop}"
    path = cache.root() / "references" / f"{name}.npy"
    if path.exists():
        return path

    import numpy as np
    import torch

    from mbbench.data.feed import to_float

    module = weights.build()
    images, _ = data.arrays()
    if shard is not None:
        images = images[shard.rows]
    preprocessing = data.preprocessing_for(weights.spec.family)
    batches = []
    with torch.inference_mode():
        for start in range(0, len(images), BATCH):
            pixels = to_float(images[start : start + BATCH], preprocessing)
            batches.append(module(torch.from_numpy(pixels)).numpy())
            if on_progress is not None:
                on_progress(min(start + BATCH, len(images)), len(images))
    with cache.atomic(path) as temporary, temporary.open("wb") as file:
        np.save(file, np.concatenate(batches))
    return path


def correct(weights: Weights, data: Dataset) -> NDArray[np.bool_]:
    """Return which images of `data` PyTorch classifies correctly, as booleans (N,)."""
    import numpy as np

    values = np.load(logits(weights, data))
    _, labels = data.arrays()
    right: NDArray[np.bool_] = values.argmax(axis=1) == labels
    return right


def top1(weights: Weights, data: Dataset) -> float:
    """Return the share of the images of `data` that PyTorch classifies correctly, 0 to 1."""
    return float(correct(weights, data).mean())


def expected_logits(
    weights: Weights,
    data: Dataset,
    quantization: Quantization | None,
    dialect: Dialect,
    on_progress: Callable[[int, int], None] | None = None,
    shard: Shard | None = None,
) -> tuple[Path, Path]:
    """Return the paths of PyTorch's logits, and of the logits that a parity check expects of an artifact.

    The second are those of the Q/DQ graph if the artifact is INT8 (then `quantization` is not None), else PyTorch's.
    """
    fp32 = logits(weights, data, on_progress, shard)
    if quantization is None:
        return fp32, fp32
    return fp32, simulated_logits(quantization, dialect, data, weights.spec.family)


def parity_shard(data: Dataset) -> Shard:
    """Return the shard that parity with PyTorch is checked on: the first batch, or all images if there are fewer."""
    return Shard(0, min(data.count, max(BATCH, PARITY_IMAGES)))


def simulated_logits(quantization: Quantization, dialect: Dialect, data: Dataset, family: Family) -> Path:
    """Return the path of a cached .npy file: logits of the first `PARITY_IMAGES` images of `data` by the Q/DQ graph.

    `family` is the network's. ONNX Runtime computes the graph in floating point (`calibrate.session`). Raises
    `BackendError`.
    """
    path = cache.root() / "references" / f"{quantization.graph.stem}-{dialect}-{data.key(family)}.npy"
    if not path.exists():
        import numpy as np

        from mbbench.compress import calibrate
        from mbbench.data.feed import to_float

        images, _ = data.arrays()
        inputs = to_float(images[:PARITY_IMAGES], data.preprocessing_for(family))
        values = calibrate.logits(quantization.write(dialect), inputs)
        with cache.atomic(path) as temporary, temporary.open("wb") as file:
            np.save(file, values)
    return path


def _torch_version() -> str:
    return metadata.version("torch")
