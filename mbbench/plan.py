"""From a profile to the cells of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

from mbbench import registry
from mbbench.errors import BackendError, UsageError, choose_one
from mbbench.families import FAMILIES, LIBRARIES, Family, family_info
from mbbench.profile import Profile, expand_home
from mbbench.spec import Cell, ModelSpec, PreprocessingOptions, RunSpec
from mbbench.spec.bounds import BOUNDS, require_countable


def plan(profile: Profile, *, list_unavailable: bool = False, models: tuple[ModelSpec, ...] | None = None) -> RunSpec:
    """Return the run that `profile`, with the command line's options applied, describes. Raises `UsageError`.

    `profile.baselines` adds each baseline at the largest resolution only, or at the smallest that the baseline accepts:
    one measurement of VGG16 may take longer than all others. If the profile names MobileNetV1 among several families,
    the others are baselines too; their weights are random unless the profile names some, since mbbench does not train
    them.

    The backend `all` means every installed backend that can start here; with `list_unavailable`, every installed one,
    so that the results of the others record the reason. `models` replaces the profile's networks.
    """
    if profile.accuracy_control and profile.max_drop is None:
        raise UsageError("--accuracy-control requires --max-drop", "add --max-drop POINTS, such as 0.5")
    require_weights_for_labels(profile)
    cells: list[Cell] = []
    models = models or resolve_files(profile)
    largest = max(max(model.size) for model in models)
    compared = [_baseline(family, largest) for family in dict.fromkeys(profile.baseline_families)]
    backends = expand_backends(profile.backend, list_unavailable=list_unavailable)
    precisions = tuple(dict.fromkeys(profile.precision))
    count = (len(models) * len(precisions) + len(compared)) * len(backends)
    require_countable("the run has too many cells", count)
    for name in backends:
        template = Cell(model=models[0], role="subject", weights=profile.weights, backend=name, device=profile.device)
        for model in models:
            cell = replace(template, model=model)
            if model.family != "mobilenet_v1" and not model.is_file and "mobilenet_v1" in profile.model:
                cell = replace(cell, role="baseline", weights=profile.weights or "random")
            cells += [replace(cell, precision=precision) for precision in precisions]
        cells += [
            replace(template, model=model, role="baseline", weights="random")
            for model in compared
            if model not in models
        ]
    return RunSpec(
        cells=tuple(cells),
        data=profile.data,
        images=profile.images,
        skip_broken=profile.skip_broken,
        settings=profile.settings,
        calibration=profile.calibration,
        max_drop=profile.max_drop,
        accuracy_control=profile.accuracy_control,
        require_effective=profile.require_effective,
        preprocessing=preprocessing_options(profile),
        labels=profile.labels,
        optional_backends=tuple(name for name in backends if name not in profile.backend),
    )


def _baseline(family: Family, largest: int) -> ModelSpec:
    """Return the baseline of that family next to networks of the resolution `largest`. Raises `UsageError`."""
    info = family_info(family)
    if family not in FAMILIES:
        raise UsageError(f"not a built-in network: {family}", f"{choose_one(family, FAMILIES)}, or give it as --model")
    return ModelSpec(family, resolution=max(largest, info.smallest))


def resolve_files(profile: Profile) -> tuple[ModelSpec, ...]:
    """Return the profile's networks, after reading those in files and in libraries. Raises `UsageError`.

    A file that fixes the size of its input keeps it, whatever the resolutions of the other networks.
    """
    from mbbench.models import files, zoo
    from mbbench.weights import checkpoint

    models = []
    for model in profile.models:
        if not model.is_file:
            models.append(model)
            continue
        if model.name.startswith(LIBRARIES):
            resolution = model.resolution if profile.res else None
            models.append(
                zoo.spec_of(model.name, profile.weights, resolution, lambda path: checkpoint.read(path).tensors)
            )
            continue
        path = expand_home(model.name)
        resolved = files.spec_of(path, model.resolution if profile.res else None, profile.logits)
        height, width = resolved.size
        fits = any(side in profile.res for side in resolved.size)
        if profile.res and not fits and all(other.is_file for other in profile.models):
            raise UsageError(f"{path} takes images of {width}x{height}, not {model.resolution}", "omit --res")
        models.append(resolved)
    networks = tuple(dict.fromkeys(models))
    names = [network.label for network in networks if network.is_file]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"two networks are called {name}", "rename one of the files: results are paired by name")
    return networks


def preprocessing_options(profile: Profile) -> PreprocessingOptions:
    """Return what the profile says about preprocessing. Raises `UsageError` for an invalid value."""
    return PreprocessingOptions(**{field.name: getattr(profile, field.name) for field in fields(PreprocessingOptions)})


def require_weights_for_labels(profile: Profile) -> None:
    """Raise `UsageError` if the profile has labels but no weights."""
    if profile.labels is not None and profile.weights is None:
        raise UsageError(
            "--labels requires --weights: a network trained on DATA has DATA's classes",
            "add --weights FILE, or leave out --labels",
        )


def group_by_artifact(spec: RunSpec) -> RunSpec:
    """Return `spec` with cells of the same network and precision next to each other, so that they share an artifact."""
    first_index = {(cell.model, cell.precision): index for index, cell in reversed(list(enumerate(spec.cells)))}
    cells = sorted(spec.cells, key=lambda cell: first_index[cell.model, cell.precision])
    return replace(spec, cells=tuple(cells))


def keep_spread(spec: RunSpec, count: int) -> RunSpec:
    """Return `spec` with only `count` of the MobileNetV1 of its grid, spread over it, and all other networks.

    Raises `UsageError` if `count` is out of bounds: too low to predict the rest from.
    """
    from mbbench.fit.spread import spread

    BOUNDS["predict"].require(count)
    grid = grid_of(spec)
    chosen = set(spread(grid, count)) if grid else set()
    return replace(spec, cells=tuple(cell for cell in spec.cells if cell.model in chosen or cell.model not in grid))


def grid_of(spec: RunSpec) -> tuple[ModelSpec, ...]:
    """Return the networks of the run that can be predicted from each other: standard MobileNetV1."""
    models = dict.fromkeys(cell.model for cell in spec.cells if cell.role == "subject")
    return tuple(model for model in models if model.family == "mobilenet_v1" and model.variant == "standard")


def expand_backends(backends: Sequence[str], *, list_unavailable: bool = False) -> tuple[str, ...]:
    """Return the names without repetitions, `all` replaced by every installed backend that can start here.

    With `list_unavailable`, `all` includes those that cannot start. Raises `UsageError` if none is left.
    """
    names: list[str] = []
    for backend in backends:
        if backend != "all":
            names.append(backend)
        else:
            names += registry.names() if list_unavailable else _startable()
    if not any(names):
        raise UsageError("no backend is named", f"give --backend; installed: {', '.join(registry.names())}")
    return tuple(dict.fromkeys(names))


def _startable() -> list[str]:
    """Return the installed backends that can start here."""
    startable = []
    for name in registry.names():
        try:
            registry.probe(name)
        except BackendError:
            continue  # `mbbench backends` reports the reason
        startable.append(name)
    return startable
