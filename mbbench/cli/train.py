"""`mbbench train` and `compress`: the commands that train. Both print the path of a checkpoint for --weights."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mbbench.cli import options, output
from mbbench.cli.progress import Display, display, tell
from mbbench.errors import UsageError
from mbbench.spec import Cell, ModelSpec, RunSpec, Settings, seconds_of

if TYPE_CHECKING:
    from mbbench.compress.pipeline import Request
    from mbbench.data import Dataset, Split
    from mbbench.profile import Profile
    from mbbench.weights import Weights
    from mbbench.weights.recipe import Progress

_FINE_TUNING_RATE = 1e-3  # a quarter of training's, to keep what was learned
_QAT_RATE = 1e-4
_TEACHERS_SHARE = 0.7
# Enough for a median: the search for a latency measures six networks.
_SHORT = Settings(min_samples=64, min_s=0.5, max_s=3.0, throughput_s=0.1, energy_s=0.1)


def train(
    alpha: options.Alpha = None,
    res: options.Res = None,
    variant: options.PaperVariant = None,
    data: options.Data = None,
    epochs: Annotated[int | None, typer.Option("--epochs", help="Passes over the data.", show_default="8")] = None,
    file: options.Checkpoint = None,
) -> None:
    """Train MobileNetV1, or find the same training in the cache, and print the checkpoint's path."""
    from mbbench import weights
    from mbbench.artifacts import reference
    from mbbench.report import units
    from mbbench.weights.recipe import Recipe

    profile = _profile(alpha=alpha, res=res, variant=variant, data=data)
    with display() as show:
        test = _load(profile, "test", show)
        spec = replace(profile.models[0], classes=test.classes)
        recipe = Recipe() if epochs is None else Recipe(epochs=epochs)
        trained = weights.trained(spec, _load(profile, "train", show), recipe, _announce(show))
        top1 = reference.top1(trained, test)
    _write_path(trained, file)
    tell(f"{spec.label}: top-1 {units.percent(top1)} on the {test.count} test images of {test.name}")


def compress(
    alpha: options.Alpha = None,
    res: options.Res = None,
    variant: options.PaperVariant = None,
    data: options.Data = None,
    weights: Annotated[
        str | None, typer.Option("--weights", metavar="FILE", help="Checkpoint to start from.", show_default="train")
    ] = None,
    prune: Annotated[
        float | None, typer.Option("--prune", metavar="PERCENT", help="Share of the Mult-Adds to remove.")
    ] = None,
    max_latency: Annotated[
        str | None,
        typer.Option("--max-latency", metavar="TIME", help="Prune until the median latency is at most this (10ms)."),
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option("--backend", help="Backend that measures --max-latency.", show_default="openvino"),
    ] = None,
    device: options.Device = None,
    threads: options.Threads = None,
    teacher: Annotated[
        str | None, typer.Option("--teacher", metavar="FILE", help="Checkpoint of a larger network to distil from.")
    ] = None,
    teacher_alpha: Annotated[float, typer.Option("--teacher-alpha", help="Width multiplier of the teacher.")] = 1.0,
    qat: Annotated[bool, typer.Option("--qat", help="Finish with quantization-aware fine-tuning for INT8.")] = False,
    epochs: Annotated[int, typer.Option("--epochs", help="Passes over the data to fine-tune.")] = 3,
    file: options.Checkpoint = None,
) -> None:
    """Prune, distil and fine-tune a MobileNetV1, and print the checkpoint's path for --weights.

    Interrupted training resumes where it stopped. INT8 itself needs no command: `mbbench run --precision int8`.
    """
    if prune is not None and not 0 < prune < 100:
        raise UsageError(f"--prune is out of range: {prune:g}", "give a percentage between 0 and 100")
    backends = None if backend is None else (backend,)
    profile = _profile(
        threads, alpha=alpha, res=res, variant=variant, data=data, weights=weights, backend=backends, device=device
    )
    with display() as show:
        test, images = _load(profile, "test", show), _load(profile, "train", show)
        start = _resolve(profile, None, images, show, profile.weights)
        larger = None if teacher is None else _resolve(profile, teacher_alpha, images, show, teacher)
        request = _request(
            mult_adds=None if prune is None else 1 - prune / 100,
            max_latency_ms=None if max_latency is None else _milliseconds(max_latency),
            teacher=larger,
            qat=qat,
            epochs=epochs,
        )
        _compress(profile, start, images, test, request, show, file)


def _compress(
    profile: Profile,
    start: Weights,
    images: Dataset,
    test: Dataset,
    request: Request,
    show: Display,
    file: Path | None,
) -> None:
    """Compress `start`, write the new checkpoint's path, and report what the compression cost on the test images."""
    from mbbench.artifacts import reference
    from mbbench.compress import pipeline
    from mbbench.models.cost import cost_of
    from mbbench.report import units

    compressed = pipeline.compress(start, images, request, partial(_latency_ms, profile), _announce(show))
    before, after = reference.top1(start, test), reference.top1(compressed, test)
    _write_path(compressed, file)
    counts = [units.millions(cost_of(weights.spec).mult_adds) for weights in (start, compressed)]
    tell(
        f"{compressed.spec.label}: {counts[0]} -> {counts[1]} Mult-Adds, top-1 {units.percent(before)} ->"
        f" {units.percent(after)} on the {test.count} test images of {test.name}"
    )


def _profile(threads: int | None = None, *, alpha: float | None, res: int | None, **fields: Any) -> Profile:
    """Return the default profile with the options of one network in it."""
    from mbbench.profile import Profile, override

    network = {"alpha": None if alpha is None else (alpha,), "res": None if res is None else (res,)}
    return override(Profile(), {"threads": threads}, network | fields)


def _request(
    *, mult_adds: float | None, max_latency_ms: float | None, teacher: Weights | None, qat: bool, epochs: int
) -> Request:
    from mbbench.compress.pipeline import Request
    from mbbench.weights.recipe import Recipe

    return Request(
        mult_adds=mult_adds,
        max_latency_ms=max_latency_ms,
        teacher=teacher,
        qat=qat,
        recipe=Recipe(
            epochs=epochs,
            learning_rate=_FINE_TUNING_RATE,
            distillation=0.0 if teacher is None else _TEACHERS_SHARE,
        ),
        qat_recipe=Recipe(epochs=1, learning_rate=_QAT_RATE, weight_decay=0.0),
    )


def _milliseconds(text: str) -> float:
    """Return --max-latency in milliseconds. Raises `UsageError`."""
    seconds = seconds_of(text)
    if not seconds > 0:
        raise UsageError(f"--max-latency is out of range: {text}", "give a time above 0, such as 10ms")
    return seconds * 1e3


def _resolve(profile: Profile, alpha: float | None, images: Dataset, show: Display, choice: str | None) -> Weights:
    """Return the weights `choice` of the profile's network, or of its standard variant in another width `alpha`."""
    from mbbench import weights
    from mbbench.weights.recipe import Recipe

    spec = replace(profile.models[0], classes=images.classes)
    if alpha is not None:
        spec = replace(spec, alpha=alpha, variant="standard")
    return weights.resolve(choice, spec, lambda: images, Recipe(), _announce(show))


def _load(profile: Profile, split: Split, show: Display) -> Dataset:
    from mbbench import data

    return data.load(profile.data, profile.res[0], split, on_progress=lambda *done: show.work("decoding images", *done))


def _announce(show: Display) -> Callable[[Progress], None]:
    return lambda now: show.work("training", now.step, now.steps, f"loss {now.loss:.3f}")


def _latency_ms(profile: Profile, spec: ModelSpec) -> float:
    """Return the median latency of `spec` on the profile's first backend, from a short `mbbench run`."""
    from mbbench import plan, run

    backend = plan.expand(profile.backend)[0]
    cell = Cell(model=spec, role="subject", weights="random", backend=backend, device=profile.device)
    settings = replace(_SHORT, threads=profile.settings.threads)
    with tempfile.TemporaryDirectory() as folder:
        request = RunSpec(cells=(cell,), data=profile.data, images=16, settings=settings)
        (result,) = run.run(request, Path(folder, "results.jsonl"), lambda _: None)
    run.verdict([result])
    assert result.measured.latency is not None
    return result.measured.latency.median_ms


def _write_path(weights: Weights, file: Path | None) -> None:
    """Copy the checkpoint to `file`, if there is one, and write its path to stdout for scripts."""
    path = weights.path
    if file is not None:
        try:
            path = Path(shutil.copyfile(weights.path, file))
        except OSError as error:
            raise UsageError(f"cannot write {file} ({error.strerror})", "choose another file with -o") from error
    output.write(f"{path}\n")
