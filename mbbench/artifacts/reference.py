"""PyTorch's own answers: what every runtime's are compared with."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from mbbench import cache
from mbbench.backend import Dialect
from mbbench.compress.search import Prepared
from mbbench.data import Dataset
from mbbench.models import Normalization
from mbbench.spec import PARITY_IMAGES, Shard, content_key
from mbbench.weights import Weights

BATCH = 32  # images at once; a shard that begins at a multiple of it gets the bits that all images would give


def logits(
    weights: Weights,
    data: Dataset,
    on_progress: Callable[[int, int], None] | None = None,
    shard: Shard | None = None,
) -> Path:
    """A .npy file of float32 logits (N, classes) of all images of `data`, or of a shard of them.

    From eager PyTorch, batch norm not folded.
    """
    name = content_key(weights.info.key, weights.spec, data.fingerprint, _torch())
    if shard is not None:
        name = f"{name}-{shard.start}-{shard.stop}"
    path = cache.root() / "references" / f"{name}.npy"
    if path.exists():
        return path

    import numpy as np
    import torch

    from mbbench.data.feed import to_float
    from mbbench.models import normalization

    module = weights.build()
    images, _ = data.arrays()
    if shard is not None:
        images = images[shard.rows]
    normal = normalization(weights.spec.family)
    parts = []
    with torch.inference_mode():
        for start in range(0, len(images), BATCH):
            parts.append(module(torch.from_numpy(to_float(images[start : start + BATCH], normal))).numpy())
            if on_progress is not None:
                on_progress(min(start + BATCH, len(images)), len(images))
    with cache.atomic(path) as temporary, temporary.open("wb") as file:
        np.save(file, np.concatenate(parts))
    return path


def top1(weights: Weights, data: Dataset) -> float:
    """Return the share of the images of `data` that PyTorch classifies correctly, 0 to 1."""
    import numpy as np

    answers = np.load(logits(weights, data))
    _, labels = data.arrays()
    return float((answers.argmax(axis=1) == labels).mean())


def first(data: Dataset) -> Shard:
    """The images that parity is checked on, and no fewer than are computed at once."""
    return Shard(0, min(data.count, max(BATCH, PARITY_IMAGES)))


def simulated(prepared: Prepared, dialect: Dialect, data: Dataset, normalization: Normalization) -> Path:
    """A .npy file of logits of the first images of `data` that a Q/DQ graph gives when it is computed in floats."""
    path = cache.root() / "references" / f"{prepared.graph.stem}-{dialect}-{data.fingerprint}.npy"
    if not path.exists():
        import numpy as np

        from mbbench.compress.calibrate import logits as run
        from mbbench.data.feed import to_float

        images, _ = data.arrays()
        values = run(prepared.write(dialect), to_float(images[:PARITY_IMAGES], normalization))
        with cache.atomic(path) as temporary, temporary.open("wb") as file:
            np.save(file, values)
    return path


def _torch() -> str:
    return metadata.version("torch")
