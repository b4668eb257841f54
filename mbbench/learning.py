"""The commands that train: `mbbench train` and `mbbench compress`. Both print a checkpoint's path for --weights."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from rich.console import Console

from mbbench import compressing, data, weights
from mbbench import plan as planning
from mbbench import run as running
from mbbench.cost import cost_of
from mbbench.errors import UsageError
from mbbench.profile import Profile
from mbbench.progress import Display, tell
from mbbench.report import units
from mbbench.spec import Cell, ModelSpec, RunSpec, Settings
from mbbench.weights import Weights
from mbbench.weights.recipe import Progress, Recipe

_FINE_TUNING_RATE = 1e-3  # a quarter of training's: what was learnt is to be kept
_QAT = Recipe(epochs=1, learning_rate=1e-4, weight_decay=0.0)
_TEACHERS_SHARE = 0.7
# Enough for a median; a budget is met by bisection, which measures six networks.
_SHORT = Settings(min_samples=64, min_s=0.5, max_s=3.0, throughput_s=0.1, energy_s=0.1)


def train(profile: Profile, recipe: Recipe, to: Path | None) -> None:
    with Display(Console(stderr=True)) as display:
        test = _load(profile, "test", display)
        spec = replace(profile.models[0], classes=test.classes)
        found = weights.trained(spec, _load(profile, "train", display), recipe, _announce(display))
        top1 = weights.top1(found, test)
    _hand_over(found, to)
    tell(f"{spec.label}: top-1 {units.percent(top1)} on the {test.count} test images of {test.name}")


def compress(
    profile: Profile,
    *,
    keep: float | None,
    max_latency_ms: float | None,
    teacher: str | None,
    teacher_alpha: float,
    qat: bool,
    epochs: int,
    to: Path | None,
) -> None:
    """Compress by training, and say what it cost on the test images. `keep` is a share of the Mult-Adds, 0 to 1."""
    with Display(Console(stderr=True)) as display:
        announce = _announce(display)
        test, train = _load(profile, "test", display), _load(profile, "train", display)
        spec = replace(profile.models[0], classes=test.classes)
        start = weights.resolve(profile.weights, spec, lambda: train, Recipe(), announce)
        larger = replace(spec, alpha=teacher_alpha, variant="standard")
        master = None if teacher is None else weights.resolve(teacher, larger, lambda: train, Recipe(), announce)
        request = compressing.Request(
            mult_adds=keep,
            max_latency_ms=max_latency_ms,
            teacher=master,
            qat=qat,
            recipe=Recipe(
                epochs=epochs,
                learning_rate=_FINE_TUNING_RATE,
                distillation=0.0 if master is None else _TEACHERS_SHARE,
            ),
            qat_recipe=_QAT,
        )
        found = compressing.compress(start, train, request, partial(_latency_ms, profile), announce)
        before, after = weights.top1(start, test), weights.top1(found, test)
    _hand_over(found, to)
    counts = [units.millions(cost_of(one.spec).mult_adds) for one in (start, found)]
    tell(
        f"{found.spec.label}: {counts[0]} -> {counts[1]} Mult-Adds, top-1 {units.percent(before)} ->"
        f" {units.percent(after)} on the {test.count} test images of {test.name}"
    )


def _load(profile: Profile, split: data.Split, display: Display) -> data.Dataset:
    return data.load(
        profile.data, profile.res[0], split, on_progress=lambda *done: display.work("decoding images", *done)
    )


def _announce(display: Display) -> Callable[[Progress], None]:
    return lambda now: display.work("training", now.step, now.steps, f"loss {now.loss:.3f}")


def _latency_ms(profile: Profile, spec: ModelSpec) -> float:
    """The median on the profile's first backend, measured as `mbbench run` does, in a short run."""
    backend = planning.expand(profile.backend)[0]
    cell = Cell(model=spec, role="subject", weights="random", backend=backend, device=profile.device)
    settings = replace(_SHORT, threads=profile.settings.threads)
    with tempfile.TemporaryDirectory() as folder:
        wanted = RunSpec(cells=(cell,), data=profile.data, images=16, settings=settings)
        (result,) = running.run(wanted, Path(folder, "results.jsonl"), lambda _: None)
    running.verdict([result])
    assert result.measured.latency is not None
    return result.measured.latency.median_ms


def _hand_over(found: Weights, to: Path | None) -> None:
    """The checkpoint's path on stdout, for a script to use."""
    path = found.path
    if to is not None:
        try:
            path = Path(shutil.copyfile(found.path, to))
        except OSError as error:
            raise UsageError(f"cannot write {to} ({error.strerror})", "name another file") from error
    sys.stdout.write(f"{path}\n")
    sys.stdout.flush()
