"""`mbbench train` and `compress`: the commands that train and print the path of a checkpoint for --weights."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mbbench.cli import inputs, options, output, probe
from mbbench.cli.interruption import interruption
from mbbench.cli.outcome import Outcome, describe_top1
from mbbench.cli.progress import Display, print_status, stderr_display
from mbbench.cli.quantities import time_within_bounds
from mbbench.errors import UsageError
from mbbench.spec import Precision
from mbbench.spec.bounds import BOUNDS

if TYPE_CHECKING:
    from mbbench.compress.pipeline import Request
    from mbbench.data import Dataset, Split
    from mbbench.profile import Profile
    from mbbench.weights import Weights
    from mbbench.weights.recipe import Progress

_QAT_RATE = 1e-4
_MIN_STEPS = 500  # of fine-tuning; with fewer, half a network trained on 161 images stays below what they can teach it
_MIN_QAT_STEPS = 100  # they adjust a network that is already trained, and each takes longer than a step in floats
_GO_ON = "finished epochs are kept in the cache; run the command again to go on"
_DISTILLATION = 0.7  # the teacher's share in the loss


def train(
    alpha: options.Alpha = None,
    res: options.Res = None,
    variant: options.NetworkVariant = None,
    data: options.Data = None,
    skip_broken: options.SkipBroken = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", help="Number of passes over the training data.", show_default="8")
    ] = None,
    file: options.CheckpointCopy = None,
) -> None:
    """Train a MobileNetV1 (or reuse an identical training) and print its checkpoint's path."""
    from mbbench import preflight, weights
    from mbbench.artifacts import reference
    from mbbench.report import units
    from mbbench.weights.recipe import Recipe

    recipe = Recipe() if epochs is None else Recipe(epochs=epochs)
    profile = _network_profile(alpha=alpha, res=res, variant=variant, data=data, skip_broken=skip_broken)
    _require_target(file)
    preflight.require_trainable(profile.data, profile.models[0])
    interruption.advise(_GO_ON)
    with stderr_display() as display:
        test = _load_split(profile, "test", display)
        spec = replace(profile.models[0], classes=test.classes)
        trained = weights.trained(spec, _load_split(profile, "train", display), recipe, _show_training(display))
        top1 = reference.top1(trained, test)
    _write_checkpoint_path(trained, file)
    print_status(f"{spec.label}: top-1 {units.percent(top1)} on the {test.count} test images of {test.name}")


def compress(
    alpha: options.Alpha = None,
    res: options.Res = None,
    variant: options.NetworkVariant = None,
    data: options.Data = None,
    skip_broken: options.SkipBroken = None,
    weights: Annotated[
        str | None,
        typer.Option("--weights", metavar="FILE", help="Checkpoint to start from.", show_default="trained on DATA"),
    ] = None,
    mean: inputs.Mean = None,
    std: inputs.Std = None,
    crop: inputs.Crop = None,
    interpolation: inputs.Resizing = None,
    channels: inputs.Order = None,
    labels: inputs.Labels = None,
    prune: Annotated[
        float | None, typer.Option("--prune", metavar="PERCENT", help="Share of the Mult-Adds to remove (e.g. 50).")
    ] = None,
    max_latency: Annotated[
        str | None,
        typer.Option(
            "--max-latency", metavar="TIME", help="Prune until the median latency is at most this (e.g. 10ms)."
        ),
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(
            "--backend",
            metavar="NAME",
            help="Backend on which the latency for --max-latency is measured.",
            show_default="openvino",
        ),
    ] = None,
    device: options.Device = None,
    precision: Annotated[
        Precision | None,
        typer.Option(
            "--precision",
            metavar="NAME",
            help="Precision in which the latency for --max-latency is measured: fp32, bf16, fp16 or int8.",
            show_default="fp32",
        ),
    ] = None,
    threads: options.Threads = None,
    teacher: Annotated[
        str | None,
        typer.Option("--teacher", metavar="FILE", help="Checkpoint of a larger network to distill from."),
    ] = None,
    teacher_alpha: Annotated[float, typer.Option("--teacher-alpha", help="Width multiplier of the teacher.")] = 1.0,
    qat: Annotated[bool, typer.Option("--qat", help="Finish with quantization-aware fine-tuning for INT8.")] = False,
    epochs: Annotated[
        int,
        typer.Option(
            "--epochs", help="Passes over the training data in fine-tuning, more if these are fewer than 500 steps."
        ),
    ] = 3,
    file: options.CheckpointCopy = None,
) -> None:
    """Prune, distill and fine-tune a MobileNetV1, and print its checkpoint's path.

    Interrupted training resumes where it stopped. Pass the path to `mbbench run --weights`.
    INT8 alone needs no new checkpoint: use `mbbench run --precision int8`.
    """
    from mbbench import plan
    from mbbench.compress.pipeline import require_stages
    from mbbench.data.labels import map_labels

    require_stages(prune, max_latency, teacher, qat=qat)
    BOUNDS["epochs"].require(epochs)
    BOUNDS["teacher_alpha"].require(teacher_alpha)
    mult_adds_share = None if prune is None else _remaining_share(prune)
    max_latency_ms = None if max_latency is None else time_within_bounds("max_latency_s", max_latency) * 1e3
    profile = _network_profile(
        threads, alpha=alpha, res=res, variant=variant, data=data, skip_broken=skip_broken, weights=weights,
        device=device,
        backend=None if backend is None else (backend,), precision=None if precision is None else (precision,),
        **inputs.to_fields(
            mean=mean, std=std, crop=crop, interpolation=interpolation, channels=channels, labels=labels
        ),
    )  # fmt: skip
    plan.require_weights_for_labels(profile)
    _require_target(file)
    _require_compressible(profile, teacher, teacher_alpha, measured=max_latency is not None)
    interruption.advise(_GO_ON)
    with stderr_display() as display:
        test, images = _load_split(profile, "test", display), _load_split(profile, "train", display)
        start = _resolve_weights(profile, profile.weights, None, images, display)
        test, images = (map_labels(split, start.spec.classes, profile.labels) for split in (test, images))
        larger = None if teacher is None else _resolve_weights(profile, teacher, teacher_alpha, images, display)
        request = _build_request(mult_adds_share, max_latency_ms, larger, qat=qat, epochs=epochs)
        _compress_and_report(profile, start, images, test, request, display, file)


def _require_compressible(profile: Profile, teacher: str | None, teacher_alpha: float, *, measured: bool) -> None:
    """Raise `MbbenchError` for what can be refused before training, as `preflight` does for a run."""
    from mbbench import plan, preflight, weights

    spec = plan.plan(profile)
    if measured:
        preflight.require_measurable(spec)
    else:
        preflight.require_inputs(spec)
    preflight.require_trainable(profile.data, profile.models[0])
    if teacher is not None:
        weights.require_usable(teacher, replace(profile.models[0], alpha=teacher_alpha, variant="standard"))


def _compress_and_report(
    profile: Profile,
    start: Weights,
    images: Dataset,
    test: Dataset,
    request: Request,
    display: Display,
    file: Path | None,
) -> None:
    """Compress `start`, write the new checkpoint's path, and report Mult-Adds and top-1 before and after.

    Raises `RequirementError` if top-1 became worse.
    """
    from mbbench.artifacts import reference
    from mbbench.compress import pipeline
    from mbbench.models.cost import cost_of
    from mbbench.report import units

    compressed = pipeline.compress(
        start, images, request, partial(probe.latency_ms, profile, display), _show_training(display)
    )
    before, after = reference.correct(start, test), reference.correct(compressed, test)
    outcome = Outcome.of(before, after)
    _write_checkpoint_path(compressed, file)
    where = f"on the {test.count} test images of {test.name}"
    if request.teacher is not None:
        top1 = describe_top1(int(reference.correct(request.teacher, test).sum()), test.count)
        print_status(f"teacher {request.teacher.spec.label}: top-1 {top1} {where}")
    counts = [units.millions(cost_of(weights.spec).mult_adds) for weights in (start, compressed)]
    print_status(f"{compressed.spec.label}: {counts[0]} -> {counts[1]} Mult-Adds, {outcome.describe()} {where}")
    outcome.require_no_loss(request)


def _network_profile(threads: int | None = None, *, alpha: float | None, res: int | None, **fields: Any) -> Profile:
    """Return the default profile, overridden by the options that describe one network."""
    from mbbench.profile import Profile, override

    network = {"alpha": None if alpha is None else (alpha,), "res": None if res is None else (res,)}
    return override(Profile(), {"threads": threads}, network | fields)


def _build_request(
    mult_adds: float | None, max_latency_ms: float | None, teacher: Weights | None, *, qat: bool, epochs: int
) -> Request:
    from mbbench.compress.pipeline import Request
    from mbbench.weights.recipe import FineTuning

    return Request(
        mult_adds=mult_adds,
        max_latency_ms=max_latency_ms,
        teacher=teacher,
        qat=qat,
        recipe=FineTuning(epochs=epochs, min_steps=_MIN_STEPS, distillation=0.0 if teacher is None else _DISTILLATION),
        qat_recipe=FineTuning(epochs=1, learning_rate=_QAT_RATE, weight_decay=0.0, min_steps=_MIN_QAT_STEPS),
    )


def _remaining_share(prune: float) -> float:
    """Return the share of the Mult-Adds that remains after --prune, 0 to 1. Raises `UsageError`."""
    BOUNDS["prune"].require(prune)
    return 1 - prune / 100


def _resolve_weights(
    profile: Profile, choice: str | None, alpha: float | None, images: Dataset, display: Display
) -> Weights:
    """Return the weights `choice` of the profile's network, or of a standard MobileNetV1 of width `alpha` if given."""
    from mbbench import weights
    from mbbench.events import Preparing
    from mbbench.weights.recipe import Recipe

    spec = replace(profile.models[0], classes=images.classes)
    if alpha is not None:
        spec = replace(spec, alpha=alpha, variant="standard")
    resolved = weights.resolve(choice, spec, lambda: images, Recipe(), _show_training(display))
    if resolved.info.notes:
        display(Preparing(f"weights {Path(choice or '').name}: {', '.join(resolved.info.notes)}", 0, 0))
    return resolved


def _load_split(profile: Profile, split: Split, display: Display) -> Dataset:
    from mbbench import data, plan
    from mbbench.artifacts.prepare import stated
    from mbbench.models import default_preprocessing

    return stated(display, data.load_split(
        profile.data, profile.models[0].size, split,
        preprocessing=plan.preprocessing_options(profile).applied_to(default_preprocessing(profile.model[0])),
        skip_broken=profile.skip_broken,
        on_progress=lambda *done: display.update("decoding images", *done),
    ))  # fmt: skip


def _show_training(display: Display) -> Callable[[Progress], None]:
    """Return a callback that shows the progress of training on `display`."""
    return lambda progress: display.update("training", progress.step, progress.steps, f"loss {progress.loss:.3f}")


def _require_target(file: Path | None) -> None:
    if file is not None:
        output.require_target(file)


def _write_checkpoint_path(weights: Weights, file: Path | None) -> None:
    """Copy the checkpoint to `file`, if given, and write the path of the copy or the original to standard output."""
    path = weights.path
    if file is not None:
        try:
            path = Path(shutil.copyfile(weights.path, file))
        except OSError as error:
            raise UsageError(f"cannot write {file} ({error.strerror})", "choose another file with -o") from error
    output.write(f"{path}\n")
