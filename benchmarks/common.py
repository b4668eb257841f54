"""What the benchmarks share: models exported with random weights, and a session as mbbench measures it."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from mbbench import registry, weights
from mbbench.artifacts.export import export
from mbbench.backend import Artifact, Session
from mbbench.compress import search
from mbbench.compress.search import Prepared
from mbbench.machine import pick_cpus
from mbbench.measure.latency import no_garbage_collection, time_calls, warm_up
from mbbench.spec import ModelSpec

WIDE = ModelSpec(alpha=1.0, resolution=224)
NARROW = ModelSpec(alpha=0.25, resolution=128)


def pin() -> None:
    """Keep this process and its children on the CPU that mbbench would take."""
    os.sched_setaffinity(0, pick_cpus(1))


def artifact(spec: ModelSpec, format: str) -> Artifact:
    found = weights.random(spec)
    return export(spec, found.info.key, format, found.build).artifact(spec, 1)  # type: ignore[arg-type]


def open_session(backend: str, spec: ModelSpec) -> Session:
    opened = registry.load(backend)
    return opened.open(artifact(spec, opened.formats[0]), "", threads=1, stage=lambda _: None)


def benchmark_app(spec: ModelSpec, seconds: int, figure: str, *options: str) -> str:
    """What OpenVINO's own tool prints of `spec` in fp32 for the pattern `figure`, whose first group it is."""
    side = spec.resolution
    command = [
        str(Path(sys.executable).with_name("benchmark_app")), "-m", str(artifact(spec, "onnx").path), "-d", "CPU",
        "-infer_precision", "f32", "-ip", "f32", "-shape", f"[1,3,{side},{side}]", "-t", str(seconds), *options,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    found = re.search(figure, done.stdout)
    if found is None:
        sys.exit(f"benchmark_app does not print {figure}:\n{done.stdout}{done.stderr}")
    return found[1]


def images(spec: ModelSpec) -> np.ndarray:
    shape = (1, 3, spec.resolution, spec.resolution)
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


def median_ms(call: Callable[[], object], seconds: float) -> float:
    """The median latency of `call`, as mbbench takes it."""
    with no_garbage_collection():
        warm_up(call, max_s=2.0)
        samples = time_calls(call, min_samples=50, min_s=seconds, max_s=4 * seconds)
    return statistics.median(samples) / 1e6


def alternate(first: Callable[[], float], second: Callable[[], float], rounds: int) -> tuple[float, float, float]:
    """The medians of both, and the median of the rounds' ratios (first over second), the order swapped each round."""
    pairs = []
    for index in range(rounds):
        if index % 2:
            after, before = second(), first()
            pairs.append((before, after))
        else:
            pairs.append((first(), second()))
    ratios = [a / b for a, b in pairs]
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs), statistics.median(ratios)


def row(path: Path | str, *cells: object) -> None:
    print(f"{path!s:<44}", *(f"{cell:>12}" if isinstance(cell, str) else f"{cell:12.4f}" for cell in cells), flush=True)


def prepared(spec: ModelSpec) -> Prepared:
    """The random network of `spec`, quantized with noise for calibration: right for speed alone."""
    found = weights.random(spec)
    load = partial(search.random_calibration, spec.resolution)
    return search.prepare(spec, found.info.key, found.build, load, "random")
