"""INT8 of the published ImageNet MobileNetV1 1.0/224: how often its top-1 is fp32's, on every backend that has INT8.

    benchmarks/imagenet_int8.py CHECKPOINT.h5 PHOTOS [MAX_DROP]

PHOTOS is a folder of photos; labels are not needed. They are split in two: each half is calibrated with once while the
other is judged, so that every photo counts and none is judged by a network that has seen it. MAX_DROP (points) turns
accuracy control on. The first rows show, in exact arithmetic, what a scale for each whole tensor makes of the weights
in place of one for each output channel. Target: 95 % at least.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from common import WIDE, row

from mbbench import data, plan, registry, run, weights
from mbbench.compress import calibrate, quantize
from mbbench.data.feed import to_float
from mbbench.graphs.onnx import to_onnx
from mbbench.models import fold_batch_norm, normalization
from mbbench.result import Result
from mbbench.spec import Cell, RunSpec, Settings
from mbbench.weights import Weights
from mbbench.weights.recipe import Recipe

_SETTINGS = Settings(min_samples=64, min_s=1.0, max_s=5.0, throughput_s=1.0)
_CALIBRATED = 128


def halves(photos: Path, folder: Path) -> list[Path]:
    """Two data folders, with the halves of the photos as training and test split and the other way round.

    A data folder has a folder for each class: the photos are dealt to two.
    """
    files = sorted(path for path in photos.rglob("*") if path.suffix.lower() in (".png", ".jpg", ".jpeg"))
    order = np.random.default_rng(0).permutation(len(files))
    for fold in (0, 1):
        for half, places in enumerate(np.array_split(order, 2)):
            for number, place in enumerate(places):
                target = folder / str(fold) / ("train" if half == fold else "val") / f"any{number % 2}"
                target.mkdir(parents=True, exist_ok=True)
                (target / f"{place}{files[place].suffix}").symlink_to(files[place].resolve())
    return [folder / "0", folder / "1"]


def naive(found: Weights, folds: list[Path], *, per_channel: bool) -> float:
    """Agreement with fp32 when ranges are the extremes seen and nothing is corrected."""
    graph = to_onnx(fold_batch_norm(found.build()), WIDE.resolution)
    normal = normalization("mobilenet_v1")
    same: list[bool] = []
    for fold in folds:
        train, test = (data.load(str(fold), WIDE.resolution, split).arrays()[0] for split in ("train", "test"))
        ranges = calibrate.ranges(calibrate.statistics(graph, to_float(train[:_CALIBRATED], normal)), "minmax")
        written = quantize.write(graph, ranges, "u8s8", per_channel=per_channel)
        images = to_float(test, normal)
        answers = [calibrate.logits(model, images).argmax(axis=1) for model in (graph, written)]
        same += (answers[0] == answers[1]).tolist()
    return float(np.mean(same))


def measured(weights_name: str, backend: str, fold: Path, max_drop: float | None) -> Result:
    cell = Cell(model=WIDE, role="subject", weights=weights_name, backend=backend, device="", precision="int8")
    spec = RunSpec(
        cells=(cell,), data=str(fold), images=None, settings=_SETTINGS,
        max_drop=max_drop, accuracy_control=max_drop is not None,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        (result,) = run.run(spec, Path(folder, "results.jsonl"), lambda _: None)
    return result


def cells(results: list[Result]) -> Iterator[str]:
    """Agreement over all folds; then of the last its dialect, the share of Mult-Adds in int8 and the median latency."""
    figures = [result.measured.accuracy for result in results]
    known = [accuracy for accuracy in figures if accuracy is not None]
    if len(known) < len(results):
        yield from (str(result.failure) for result in results if result.failure is not None)
        return
    yield f"{sum(a.agreement * a.images for a in known) / sum(a.images for a in known):.1%}"
    last = results[-1]
    assert last.artifact is not None and last.executed is not None and last.measured.latency is not None
    yield last.artifact.dialect
    yield f"{sum(s.mult_adds_share for s in last.executed.shares if s.precision == 'int8'):.1%}"
    yield f"{last.measured.latency.median_ms:.2f}"


def main(checkpoint: str, photos: str, max_drop: float | None = None) -> None:
    found = weights.resolve(f"keras:{checkpoint}", WIDE, lambda: sys.exit("no training"), Recipe())
    with tempfile.TemporaryDirectory() as folder:
        folds = halves(Path(photos), Path(folder))
        row("", "agreement", "dialect", "in int8", "median, ms")
        for name, per_channel in (("a scale a tensor", False), ("a scale an output channel", True)):
            row(f"naive, {name}", f"{naive(found, folds, per_channel=per_channel):.1%}", "u8s8")
        for backend in plan.expand(("all",)):
            opened = registry.load(backend)
            device = next(iter(opened.devices()))
            if "int8" in opened.native(device):
                row(backend, *cells([measured(f"keras:{checkpoint}", backend, fold, max_drop) for fold in folds]))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(float, sys.argv[3:]))
