"""Images per second of the accuracy phase, divided by the runtime's peak, at resolution 224. Target: at least 0.9.

    .venv/bin/python benchmarks/evaluation.py FASHION_MNIST_FOLDER

The images are test images of Fashion-MNIST, decoded and resized once to a memory-mapped uint8 file. The peak is the
throughput of the same session on a single batch, run repeatedly. Both alternate in one process; weights are random.
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
from mbbench.data.feed import full_batch
from mbbench.machine import allowed_cpus
from mbbench.measure.accuracy import logits_of
from mbbench.measure.latency import measure_throughput
from mbbench.models import default_preprocessing
from mbbench.spec import ModelSpec

_BATCH = 16
_ROUNDS = 5
_IMAGES = {NARROW.alpha: 3_200, WIDE.alpha: 800}


def evaluation_rate(session: Session, images: np.ndarray, spare_cpus: Collection[int]) -> float:
    start = perf_counter()
    parts = logits_of(session, images, default_preprocessing("mobilenet_v1"), _BATCH, spare_cpus)
    return sum(map(len, parts)) / (perf_counter() - start)


def peak_rate(session: Session, images: np.ndarray) -> float:
    bulk = full_batch(images, default_preprocessing("mobilenet_v1"), _BATCH)
    return measure_throughput(lambda: session.run(bulk), batch=_BATCH, seconds=3.0).images_per_s


def main(folder: str) -> None:
    spare = allowed_cpus()
    pin()
    spare -= allowed_cpus()
    row("model", "images/s", "peak", "ratio")
    for alpha, count in _IMAGES.items():
        spec = ModelSpec(alpha=alpha, resolution=224)
        images = data.load_split(f"fashion-mnist:{Path(folder).resolve()}", (224, 224), "test").arrays()[0][:count]
        for backend in ("openvino", "onnxruntime"):
            with open_session(backend, spec) as session:
                figures = alternate(
                    partial(evaluation_rate, session, images, spare), partial(peak_rate, session, images), _ROUNDS
                )
            row(f"{spec.label} on {backend}", *figures)


if __name__ == "__main__":
    main(sys.argv[1])
