"""From a profile and the command line to the cells of a run, and what they will take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mbbench import registry
from mbbench.errors import BackendError, UsageError
from mbbench.profile import Profile
from mbbench.report.content import Table
from mbbench.spec import Cell, Family, ModelSpec, RunSpec

_BASELINES: tuple[Family, ...] = ("vgg16", "googlenet")
_START_S = 1.0  # of a child process, about
_LONGEST = 5  # times a scenario's own seconds


def plan(profile: Profile) -> RunSpec:
    """The run that a profile, with the command line's options already in it, describes. Raises `UsageError`.

    Of several resolutions the baselines take the largest: one measurement of VGG16 may take longer than all others.
    Beside a MobileNet the other families are baselines, with random weights if none are named: nothing trains them.
    """
    cells: list[Cell] = []
    models = profile.models
    for name in expand(profile.backend):
        first = Cell(model=models[0], role="subject", weights=profile.weights, backend=name, device=profile.device)
        for model in models:
            own = replace(first, model=model)
            if model.family in _BASELINES and "mobilenet_v1" in profile.model:
                own = replace(own, role="baseline", weights=profile.weights or "random")
            cells += [replace(own, precision=precision) for precision in dict.fromkeys(profile.precision)]
        if profile.baselines:
            cells += [
                replace(first, model=ModelSpec(family, resolution=max(profile.res)), role="baseline", weights="random")
                for family in _BASELINES
                if family not in profile.model
            ]
    return RunSpec(
        cells=tuple(cells),
        data=profile.data,
        images=profile.images,
        settings=profile.settings,
        calibration=profile.calibration,
        max_drop=profile.max_drop,
        accuracy_control=profile.accuracy_control,
        require_effective=profile.require_effective,
    )


def grouped(spec: RunSpec) -> RunSpec:
    """The same cells, those of a network and precision side by side: each artifact is made once, and used up."""
    order = {(cell.model, cell.precision): place for place, cell in reversed(list(enumerate(spec.cells)))}
    cells = sorted(spec.cells, key=lambda cell: order[cell.model, cell.precision])
    return replace(spec, cells=tuple(cells))


def expand(backends: Sequence[str]) -> tuple[str, ...]:
    """`all` becomes every installed backend that can start here; repeated names count once."""
    names: list[str] = []
    for backend in backends:
        names += _startable() if backend == "all" else [backend]
    if not any(names):
        raise UsageError("no backend is named", f"give --backend; installed are: {', '.join(registry.names())}")
    return tuple(dict.fromkeys(names))


def _startable() -> list[str]:
    found = []
    for name in registry.names():
        try:
            registry.load(name).devices()
        except BackendError:
            continue  # `mbbench backends` says why
        found.append(name)
    return found


def describe(spec: RunSpec) -> Table:
    """The cells with the least and most time each can take, from the settings alone."""
    settings = spec.settings
    rest = settings.throughput_s + (settings.sustain_s or 0) + _START_S
    asked = settings.scenario_s * len(settings.scenarios)
    least = settings.min_s + rest + asked
    most = settings.warmup_max_s + settings.max_s + rest + _LONGEST * asked
    origin = {None: f"trained on {spec.data}, once", "random": "random"}
    rows = [
        (cell.model.label, cell.precision, cell.backend, cell.device or "default",
         origin.get(cell.weights, cell.weights or ""), f"{least:.0f} to {most:.0f} s")
        for cell in spec.cells
    ]  # fmt: skip
    count = len(spec.cells)
    return Table(
        f"{count} cell{'s' * (count > 1)}, {least * count:.0f} to {most * count:.0f} s of measuring",
        ("Model", "Precision", "Backend", "Device", "Weights", "Time"),
        tuple(rows),
        numeric=False,
        notes=(
            "Besides: the machine's ceilings, training, quantization and export where they are not cached, evaluation"
            " on the test images, the times of layers, energy where the chip counts it, and the end of a call that"
            " outlasts its phase.",
        ),
    )
