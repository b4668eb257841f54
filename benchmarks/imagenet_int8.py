"""Top-1 agreement of INT8 with fp32 for the published ImageNet MobileNetV1 1.0/224, on every backend with INT8.

    .venv/bin/python benchmarks/imagenet_int8.py CHECKPOINT.h5 PHOTOS [MAX_DROP]

Target: at least 95 %. PHOTOS is a folder of photos; labels are not needed. The photos are split in half: each half
calibrates a network that is evaluated on the other half, so every photo counts and none is evaluated on a network that
has seen it. MAX_DROP (points) turns accuracy control on. The first rows show, in exact arithmetic, INT8 without
corrections: with one weight scale per tensor, and with one per output channel.
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
from mbbench.models import default_preprocessing, fold_batch_norm
from mbbench.result import Result
from mbbench.spec import Cell, RunSpec, Settings
from mbbench.weights import Weights
from mbbench.weights.recipe import Recipe

_SETTINGS = Settings(min_samples=64, min_s=1.0, max_s=5.0, throughput_s=1.0)
_CALIBRATION_IMAGES = 128


def halves(photos: Path, folder: Path) -> list[Path]:
    """Create two data folders: the halves of the photos are training and test split, then test and training split.

    A data folder needs a folder per class, so the photos alternate between two classes.
    """
    files = sorted(path for path in photos.rglob("*") if path.suffix.lower() in (".png", ".jpg", ".jpeg"))
    order = np.random.default_rng(0).permutation(len(files))
    for fold in (0, 1):
        for half, indices in enumerate(np.array_split(order, 2)):
            for number, index in enumerate(indices):
                target = folder / str(fold) / ("train" if half == fold else "val") / f"any{number % 2}"
                target.mkdir(parents=True, exist_ok=True)
                (target / f"{index}{files[index].suffix}").symlink_to(files[index].resolve())
    return [folder / "0", folder / "1"]


def naive_agreement(checkpoint: Weights, folds: list[Path], *, per_channel: bool) -> float:
    """Return the agreement with fp32 when ranges are the observed extremes and nothing is corrected."""
    graph = to_onnx(fold_batch_norm(checkpoint.build()), WIDE.resolution)
    normal = default_preprocessing("mobilenet_v1")
    agrees: list[bool] = []
    for fold in folds:
        train, test = (data.load_split(str(fold), WIDE.size, split).arrays()[0] for split in ("train", "test"))
        ranges = calibrate.ranges(calibrate.statistics(graph, to_float(train[:_CALIBRATION_IMAGES], normal)), "minmax")
        quantized = quantize.write(graph, ranges, "u8s8", per_channel=per_channel)
        images = to_float(test, normal)
        top1 = [calibrate.logits(model, images).argmax(axis=1) for model in (graph, quantized)]
        agrees += (top1[0] == top1[1]).tolist()
    return float(np.mean(agrees))


def measure(weights_name: str, backend: str, fold: Path, max_drop: float | None) -> Result:
    cell = Cell(model=WIDE, role="subject", weights=weights_name, backend=backend, device="", precision="int8")
    spec = RunSpec(
        cells=(cell,), data=str(fold), images=None, settings=_SETTINGS,
        max_drop=max_drop, accuracy_control=max_drop is not None,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        (result,) = run.run(spec, Path(folder, "results.jsonl"), lambda _: None)
    return result


def cells(results: list[Result]) -> Iterator[str]:
    """Yield the agreement over all folds, then the dialect, int8 share and median latency of the last fold."""
    figures = [result.measured.accuracy for result in results]
    accuracies = [accuracy for accuracy in figures if accuracy is not None]
    if len(accuracies) < len(results):
        yield from (str(result.failure) for result in results if result.failure is not None)
        return
    agreeing = sum(accuracy.agreement * accuracy.images for accuracy in accuracies)
    yield f"{agreeing / sum(accuracy.images for accuracy in accuracies):.1%}"
    last = results[-1]
    assert last.artifact is not None and last.executed is not None and last.measured.latency is not None
    yield last.artifact.dialect
    yield f"{sum(share.mult_adds_share for share in last.executed.shares if share.precision == 'int8'):.1%}"
    yield f"{last.measured.latency.median_ms:.2f}"


def main(checkpoint: str, photos: str, max_drop: float | None = None) -> None:
    imported = weights.resolve(
        f"keras:{checkpoint}", WIDE, lambda: sys.exit("the checkpoint is not trained here"), Recipe()
    )
    with tempfile.TemporaryDirectory() as folder:
        folds = halves(Path(photos), Path(folder))
        row("", "agreement", "dialect", "in int8", "median, ms")
        for name, per_channel in (("one scale per tensor", False), ("one scale per output channel", True)):
            row(f"naive, {name}", f"{naive_agreement(imported, folds, per_channel=per_channel):.1%}", "u8s8")
        for name in plan.expand_backends(("all",)):
            backend = registry.load(name)
            if "int8" in backend.native(next(iter(backend.devices()))):
                row(name, *cells([measure(f"keras:{checkpoint}", name, fold, max_drop) for fold in folds]))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(float, sys.argv[3:]))
