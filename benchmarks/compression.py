"""Top-1, latency and size of compressed MobileNets on Fashion-MNIST at 64: reports/reference/compression.md.

    .venv/bin/python benchmarks/compression.py FASHION_MNIST_FOLDER [ALPHA ...]

Targets: int8 loses at most 0.5 points of top-1 without quantization-aware training, pruning loses at most 1 point, and
int8 takes at most 0.27 of the bytes of fp32. For the latency of int8 see `int8_vs_fp32.py`.

Trains each width once, prunes half of its Mult-Adds with fine-tuning, and measures fp32, bf16, int8, pruned fp32 and
pruned int8 with three CPU runtimes. The table has the newest result of every width measured on this machine, in this
run or an earlier one.
"""

from __future__ import annotations

import contextlib
import gzip
import shutil
import sys
import tempfile
from pathlib import Path

from mbbench import data, run, store, weights
from mbbench.compress import pipeline
from mbbench.machine import fingerprint
from mbbench.report import units
from mbbench.report.document import Table
from mbbench.report.formats import markdown
from mbbench.result import Result
from mbbench.spec import Cell, ModelSpec, Precision, RunSpec, Settings
from mbbench.weights.recipe import FineTuning, Recipe

_RESOLUTION = 64
_ALPHAS = (0.25, 0.5, 0.75, 1.0)
_TRAINING = Recipe(epochs=3)
_TUNING = FineTuning(epochs=2, min_steps=0)
_BACKENDS = ("torch", "onnxruntime", "openvino")
_VARIANTS: tuple[tuple[str, Precision], ...] = (
    ("whole", "fp32"), ("whole", "bf16"), ("whole", "int8"), ("pruned", "fp32"), ("pruned", "int8"),
)  # fmt: skip
_FOLDER = Path("reports/reference")
_COLUMNS = ("Model", "Backend", "Top-1 [95 %]", "against fp32, points", "Median, ms", "of fp32", "Size", "of fp32")


def prepare(alpha: float, source: str, folder: Path) -> None:
    """Write the checkpoints `ALPHA-whole.safetensors` and `ALPHA-pruned.safetensors` to `folder`."""
    train = data.load_split(source, (_RESOLUTION, _RESOLUTION), "train")
    spec = ModelSpec(alpha=alpha, resolution=_RESOLUTION, classes=train.classes)
    whole = weights.trained(spec, train, _TRAINING)
    request = pipeline.Request(mult_adds=0.5, recipe=_TUNING, qat_recipe=_TUNING)
    pruned = pipeline.compress(
        whole, train, request, lambda _: sys.exit("pruning has no latency limit"), lambda _: None
    )
    for name, checkpoint in (("whole", whole), ("pruned", pruned)):
        shutil.copyfile(checkpoint.path, folder / f"{alpha}-{name}.safetensors")


def measure(alpha: float, source: str, results: Path) -> None:
    """Measure all variants of a width on all backends, and append the results to `results`."""
    model = ModelSpec(alpha=alpha, resolution=_RESOLUTION)
    cells = tuple(
        Cell(model=model, role="subject", weights=f"{alpha}-{name}.safetensors", backend=backend, device="",
             precision=precision)
        for backend in _BACKENDS
        for name, precision in _VARIANTS
    )  # fmt: skip
    spec = RunSpec(cells=cells, data=source, images=None, settings=Settings())
    for _ in run.run(spec, results, lambda _: None):
        pass


def rows(results: list[Result]) -> list[tuple[str, ...]]:
    """Return a row per result, compared with the first result of its backend, which is fp32."""
    table = []
    for result in results:
        fp32 = next(r for r in results if r.cell.backend == result.cell.backend)
        name = " ".join((result.cell.model.label.removesuffix(" pruned"), result.cell.precision))
        if result.cell.weights is not None and "pruned" in result.cell.weights:
            name += ", half of Mult-Adds pruned"
        accuracy, latency, artifact = result.measured.accuracy, result.measured.latency, result.artifact
        if result.failure is not None or accuracy is None or latency is None or artifact is None:
            cause = "not measured" if result.failure is None else result.failure.cause
            table.append((name, result.cell.backend, f"refused: {cause}", *[""] * 5))
            continue
        base_accuracy, base_latency, base = fp32.measured.accuracy, fp32.measured.latency, fp32.artifact
        assert base_accuracy is not None and base_latency is not None and base is not None
        assert accuracy.top1 is not None and base_accuracy.top1 is not None
        table.append(
            (
                name,
                result.cell.backend,
                units.percent(accuracy.top1, accuracy.top1_ci95),
                f"{(accuracy.top1 - base_accuracy.top1) * 100:+.2f}",
                units.number(latency.median_ms, interval=latency.median_ci95_ms),
                f"{latency.median_ms / base_latency.median_ms:.2f}",
                units.megabytes(artifact.size_bytes),
                f"{artifact.size_bytes / base.size_bytes:.2f}",
            )
        )
    return table


def render(results: list[Result]) -> str:
    """Return the table of the newest result of each cell, by width."""
    newest = {(r.cell.model.alpha, r.cell.backend, str(r.cell.weights), r.cell.precision): r for r in results}
    table: list[tuple[str, ...]] = []
    for alpha in sorted({result.cell.model.alpha for result in results}):
        cells = [
            (alpha, backend, f"{alpha}-{name}.safetensors", precision)
            for backend in _BACKENDS
            for name, precision in _VARIANTS
        ]
        table += rows([newest[cell] for cell in cells if cell in newest])
    machine = results[-1].machine
    notes = [
        f"{machine.summary}; 1 thread, batch 1. {_TRAINING.epochs} epochs of training, {_TUNING.epochs} more after"
        " pruning, which is why pruned networks may gain. Brackets hold 95 % intervals. Records: compression.jsonl.gz."
    ]
    if machine.saturates_int8:
        notes.append("This CPU has no VNNI: INT8 pays in size here, not in time.")
    title = f"Compression of MobileNetV1 on Fashion-MNIST at {_RESOLUTION}"
    return markdown.render_table(Table(title, _COLUMNS, tuple(table), notes=tuple(notes))) + "\n"


def main(folder: str, *alphas: str) -> None:
    source = f"fashion-mnist:{Path(folder).resolve()}"
    records, page = ((_FOLDER / f"compression.{suffix}").resolve() for suffix in ("jsonl.gz", "md"))
    widths = [float(alpha) for alpha in alphas] or list(_ALPHAS)
    # The working directory is temporary, so that results name checkpoints without a folder.
    with tempfile.TemporaryDirectory() as temporary, contextlib.chdir(temporary):
        for alpha in widths:
            prepare(alpha, source, Path())
        for alpha in widths:
            results = Path(f"{alpha}.jsonl").resolve()
            measure(alpha, source, results)
            with records.open("ab") as file:  # gzip files may be concatenated
                file.write(gzip.compress(results.read_bytes()))
    text = render([result for result in store.read(records) if result.machine.id == fingerprint().id])
    page.write_text(text)
    print(text, end="")


if __name__ == "__main__":
    main(*sys.argv[1:])
