"""Shared code of the benchmarks: models with random weights, sessions, and timing as mbbench does it."""

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
from mbbench.compress import calibrate, search
from mbbench.compress.search import Quantization
from mbbench.machine import pick_cpus
from mbbench.measure.latency import no_garbage_collection, time_calls, warm_up
from mbbench.spec import ModelSpec

WIDE = ModelSpec(alpha=1.0, resolution=224)
NARROW = ModelSpec(alpha=0.25, resolution=128)


def pin() -> None:
    """Pin this process and its children to the CPU that mbbench would choose."""
    os.sched_setaffinity(0, pick_cpus(1))


def artifact(spec: ModelSpec) -> Artifact:
    """Export `spec` with random weights, for batches of one image."""
    random_weights = weights.random(spec)
    exported = export(spec, random_weights.info.key, "onnx", random_weights.build)
    return exported.artifact(spec, 1)


def open_session(backend_name: str, spec: ModelSpec) -> Session:
    """Open a session with one thread on the default device."""
    backend = registry.load(backend_name)
    return backend.open(artifact(spec), "", threads=1, stage=lambda _: None)


def benchmark_app(spec: ModelSpec, seconds: int, pattern: str, *options: str) -> str:
    """Run OpenVINO's benchmark_app on `spec` in fp32, and return the first group of `pattern` in its output."""
    side = spec.resolution
    command = [
        str(Path(sys.executable).with_name("benchmark_app")), "-m", str(artifact(spec).path), "-d", "CPU",
        "-infer_precision", "f32", "-ip", "f32", "-shape", f"[1,3,{side},{side}]", "-t", str(seconds), *options,
    ]  # fmt: skip
    completed = subprocess.run(command, capture_output=True, text=True)
    match = re.search(pattern, completed.stdout)
    if match is None:
        sys.exit(f"the output of benchmark_app does not match {pattern}:\n{completed.stdout}{completed.stderr}")
    return match[1]


def images(spec: ModelSpec) -> np.ndarray:
    """Return one image of noise, (1, 3, H, W) float32."""
    shape = (1, 3, spec.resolution, spec.resolution)
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


def median_ms(call: Callable[[], object], seconds: float) -> float:
    """Return the median latency of `call`, measured as mbbench does."""
    with no_garbage_collection():
        warm_up(call, max_s=2.0)
        samples = time_calls(call, min_samples=50, min_s=seconds, max_s=4 * seconds)
    return statistics.median(samples) / 1e6


def alternate(first: Callable[[], float], second: Callable[[], float], rounds: int) -> tuple[float, float, float]:
    """Return the medians of both figures, and the median of their ratio per round (first over second).

    The order of the two is swapped every round.
    """
    pairs = []
    for index in range(rounds):
        if index % 2:
            after, before = second(), first()
            pairs.append((before, after))
        else:
            pairs.append((first(), second()))
    ratios = [a / b for a, b in pairs]
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs), statistics.median(ratios)


def row(name: str, *cells: object) -> None:
    """Print a row of a table: strings as they are, numbers with four decimals."""
    print(f"{name:<44}", *(f"{cell:>12}" if isinstance(cell, str) else f"{cell:12.4f}" for cell in cells), flush=True)


def quantization(spec: ModelSpec) -> Quantization:
    """Return a random network quantized with noise as calibration, which is enough to measure speed."""
    random_weights = weights.random(spec)
    load = partial(calibrate.random_calibration, spec.size)
    return search.best_quantization(spec, random_weights.info.key, random_weights.build, load, "random")
