"""From a profile and the command line to the cells of a run, and what they will take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mbbench import registry
from mbbench.errors import BackendError, UsageError
from mbbench.profile import Profile
from mbbench.spec import Cell, Family, ModelSpec, RunSpec

_BASELINES: tuple[Family, ...] = ("vgg16", "googlenet")


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
