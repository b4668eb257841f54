"""PyTorch's own answers: what every runtime's are compared with."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from mbbench import cache
from mbbench.backend import Dialect
from mbbench.compress.search import Prepared
from mbbench.data import Dataset
from mbbench.measure.accuracy import PARITY_IMAGES
from mbbench.models import Normalization
from mbbench.spec import content_key
from mbbench.weights import Weights

_BATCH = 32


def logits(weights: Weights, data: Dataset, on_progress: Callable[[int, int], None] | None = None) -> Path:
    """A .npy file of float32 logits (N, classes) of all images of `data`, from eager PyTorch, batch norm not folded."""
    path = (
        cache.root() / "references" / f"{content_key(weights.info.key, weights.spec, data.fingerprint, _torch())}.npy"
    )
    if path.exists():
        return path

    import numpy as np
    import torch

    from mbbench.data.feed import to_float
    from mbbench.models import normalization

    module = weights.build()
    images, _ = data.arrays()
    normal = normalization(weights.spec.family)
    parts = []
    with torch.inference_mode():
        for start in range(0, len(images), _BATCH):
            parts.append(module(torch.from_numpy(to_float(images[start : start + _BATCH], normal))).numpy())
            if on_progress is not None:
                on_progress(min(start + _BATCH, len(images)), len(images))
    with cache.atomic(path) as temporary, temporary.open("wb") as file:
        np.save(file, np.concatenate(parts))
    return path


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
