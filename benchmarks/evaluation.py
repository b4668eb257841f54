"""Images a second of the accuracy phase over the runtime's own peak, at 224.

    benchmarks/evaluation.py FASHION_MNIST_FOLDER

The images are test images of Fashion-MNIST, decoded and resized once to a mapped file of uint8. Peak is the
session fed with one batch over and over. Both take turns in one process; weights are random. Target: at least 0.9.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
from common import NARROW, WIDE, alternate, open_session, pin, row

from mbbench import data
from mbbench.backend import Session
from mbbench.data.feed import chunk
from mbbench.machine import allowed_cpus
from mbbench.measure.accuracy import logits_of
from mbbench.measure.latency import count_images
from mbbench.models import normalization
from mbbench.spec import ModelSpec

_BATCH = 16
_ROUNDS = 5
_IMAGES = {NARROW.alpha: 3_200, WIDE.alpha: 800}


def evaluated(session: Session, images: np.ndarray, spare_cpus: Collection[int]) -> float:
    start = perf_counter()
    parts = logits_of(session, images, normalization("mobilenet_v1"), _BATCH, spare_cpus)
    return sum(map(len, parts)) / (perf_counter() - start)


def peak(session: Session, images: np.ndarray) -> float:
    bulk = chunk(images, normalization("mobilenet_v1"), _BATCH)
    return count_images(lambda: session.run(bulk), batch=_BATCH, seconds=3.0).images_per_s


def main(folder: str) -> None:
    spare = allowed_cpus()
    pin()
    spare -= allowed_cpus()
    row("model", "images/s", "peak", "ratio")
    for alpha, count in _IMAGES.items():
        spec = ModelSpec(alpha=alpha, resolution=224)
        images = data.load(f"fashion-mnist:{Path(folder).resolve()}", 224, "test").arrays()[0][:count]
        for backend in ("openvino", "onnxruntime"):
            with open_session(backend, spec) as session:
                figures = alternate(partial(evaluated, session, images, spare), partial(peak, session, images), _ROUNDS)
            row(f"{spec.label} on {backend}", *figures)


if __name__ == "__main__":
    main(sys.argv[1])
