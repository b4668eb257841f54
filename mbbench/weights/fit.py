"""Which network a checkpoint fits: the check before anything is measured, and the options that would be right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mbbench.errors import UsageError
from mbbench.families import FAMILIES
from mbbench.spec import ModelSpec
from mbbench.spec.bounds import BOUNDS
from mbbench.weights import checkpoint
from mbbench.weights.importers import KINDS, State

if TYPE_CHECKING:
    from torch import nn

_HINT = f"give a checkpoint that matches --model, or import one: {', '.join(f'{kind}:FILE' for kind in KINDS)}"


def convert(kind: str | None, tensors: State, spec: ModelSpec, path: Path) -> tuple[State, ModelSpec]:
    """Return the tensors under the names of mbbench's network, and `spec` with their number of classes and padding.

    `kind` is a key of `KINDS`, or None for the tensors of mbbench's own networks. Raises `UsageError` if names or
    shapes are not those of the network; it says which options fit the file, if any do. No memory is allocated for the
    network.
    """
    error = _unreadable(kind, spec)
    if error is None:
        state, fitted = _translate(kind, tensors, spec, path)
        module = _skeleton(fitted)
        if (mismatch := _mismatch(module, state, path)) is None:
            return state, fitted
        error = mismatch if _overlaps(module, state) else _foreign(kind, tensors, spec, path)
    raise _suggestion(kind, tensors, spec, path) or error


def _suggestion(kind: str | None, tensors: State, spec: ModelSpec, path: Path) -> UsageError | None:
    """Return what the file holds and the options that fit it, or None if nothing is known to fit."""
    for other, candidate in _candidates(kind, spec):
        state, fitted = _translate(other, tensors, candidate, path)
        if not _has_names(_skeleton(fitted), state):
            continue
        fitted = replace(fitted, alpha=_alpha(state, fitted))
        exact = _mismatch(_skeleton(fitted), state, path) is None
        options = [] if other == kind else [f"--weights {path if other is None else f'{other}:{path}'}"]
        options += [] if fitted.family == spec.family else [f"--model {fitted.family}"]
        options += [f"--alpha {fitted.alpha:g}"] if exact and fitted.alpha != spec.alpha else []
        options += [] if fitted.variant == spec.variant else [f"--variant {fitted.variant}"]
        if options:
            alpha = f" of alpha {fitted.alpha:g}" if exact and fitted.alpha != spec.alpha else ""
            return UsageError(f"{path} holds {_title(other, fitted)}{alpha}", f"give {' '.join(options)}")
    return None


def _candidates(kind: str | None, spec: ModelSpec) -> Iterator[tuple[str | None, ModelSpec]]:
    """Yield every importer and network that a file can be for, the requested ones first."""
    kinds = sorted((*KINDS, None), key=lambda other: (other != kind, other is None))
    for other in kinds:
        families = tuple(FAMILIES if other is None else KINDS[other].networks)
        for family in sorted(families, key=lambda family: family != spec.family):
            info = FAMILIES[family]
            for variant in ("standard", *(info.variants if other is None else ())):
                yield other, ModelSpec(family, resolution=max(spec.resolution, info.smallest), variant=variant)


def _unreadable(kind: str | None, spec: ModelSpec) -> UsageError | None:
    """Return the error if the importer has no such network."""
    if kind is None or (spec.family in KINDS[kind].networks and spec.variant == "standard"):
        return None
    networks = " or ".join(KINDS[kind].networks)
    remedy = f"give --model {networks}" if spec.family not in KINDS[kind].networks else "leave out --variant"
    return UsageError(f"{kind}:FILE does not read {spec.label}", remedy)


def _translate(kind: str | None, tensors: State, spec: ModelSpec, path: Path) -> tuple[State, ModelSpec]:
    """Return the tensors under mbbench's names, as far as they are known, and their spec."""
    state = tensors if kind is None else KINDS[kind].convert(tensors, spec, path)
    padding = spec.padding if kind is None else KINDS[kind].padding
    return state, replace(spec, classes=checkpoint.count_classes(state, spec.family) or spec.classes, padding=padding)


def _skeleton(spec: ModelSpec) -> nn.Module:
    """Return the network without its weights: names and shapes only."""
    import torch

    from mbbench.models import build

    with torch.device("meta"):
        return build(spec)


def _mismatch(module: nn.Module, state: State, path: Path) -> UsageError | None:
    from mbbench.models import match_parameters

    try:
        match_parameters(module, state, str(path))
    except UsageError as error:
        return error
    return None


def _has_names(module: nn.Module, state: State) -> bool:
    """Return whether the names are those of the network, whatever the shapes are."""
    expected = module.state_dict()
    return _mismatch(module, {name: expected.get(name, tensor) for name, tensor in state.items()}, Path()) is None


def _overlaps(module: nn.Module, state: State) -> bool:
    """Return whether most names are those of the network, so that the first difference explains something."""
    return 2 * len(module.state_dict().keys() & state.keys()) > len(state)


def _alpha(state: State, spec: ModelSpec) -> float:
    """Return the width multiplier of a MobileNetV1, which ends in 1024 channels times that."""
    if spec.family != "mobilenet_v1" or state["classifier.weight"].ndim != 2:
        return spec.alpha
    alpha = state["classifier.weight"].shape[1] / 1024
    return alpha if BOUNDS["alpha"].holds(alpha) else spec.alpha


def _foreign(kind: str | None, tensors: State, spec: ModelSpec, path: Path) -> UsageError:
    """Return the error for a file with the names of another network."""
    names = ", ".join(list(tensors)[:3]) + (", ..." if len(tensors) > 3 else "")
    title = _title(kind, spec)
    remedy = _HINT if kind is None else f"give a checkpoint of {title}"
    return UsageError(f"{path} does not hold {title}: its tensors are {names}", remedy)


def _title(kind: str | None, spec: ModelSpec) -> str:
    """Return the network's name with its framework's: `timm's MobileNetV1`."""
    names = {family: name for importer in KINDS.values() for family, name in importer.networks.items()}
    owner = "mbbench" if kind is None else KINDS[kind].framework
    if kind is None and spec.family in KINDS["torchvision"].networks:
        owner = KINDS["torchvision"].framework  # mbbench uses its names
    variant = "" if spec.variant == "standard" else f"{spec.variant} "
    return f"{owner}'s {variant}{names.get(spec.family, spec.family)}"
