"""Weights of a run: trained, random, imported or from a file, always as one checkpoint with a content key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mbbench import cache
from mbbench.data import Dataset
from mbbench.errors import UsageError
from mbbench.families import FILE_SUFFIX, LIBRARIES
from mbbench.models import files
from mbbench.profile import expand_home
from mbbench.result import WeightsInfo
from mbbench.spec import ModelSpec, content_key
from mbbench.weights import checkpoint, content, fit, imagenet, importers
from mbbench.weights.recipe import TRAINER, Progress, Recipe

if TYPE_CHECKING:
    from torch import Tensor, nn

_SEED = 0
_INITIALIZER = 1  # version of `random`; increase it if the weights it makes change


@dataclass(frozen=True, slots=True)
class Weights:
    """A checkpoint, the network it belongs to, and its origin."""

    path: Path
    spec: ModelSpec
    info: WeightsInfo

    def build(self) -> nn.Module:
        """Return the network with these weights, in evaluation mode. Raises `UsageError` if they do not fit it."""
        from mbbench.models import build, load_parameters

        module = build(self.spec)
        if self.path.suffix == FILE_SUFFIX:  # the weights are in the network's file
            return module
        state = checkpoint.read_state(self.path) if self.spec.is_file else checkpoint.read(self.path).tensors
        load_parameters(module, state, str(self.path))
        return module

    def sha256(self) -> str:
        """Return the SHA-256 of the file. Training on two machines gives the same key, but not always the same bits."""
        return _digest(self.path)


def resolve(
    choice: str | None,
    spec: ModelSpec,
    train: Callable[[], Dataset],
    recipe: Recipe,
    on_progress: Callable[[Progress], None] | None = None,
) -> Weights:
    """Return the weights that `choice` (the option --weights) names, made if they are not in the cache.

    None trains on `train()`, or means the weights in an ONNX file, "random" initializes randomly, "imagenet" downloads
    published weights (`imagenet`), `KIND:FILE` imports another framework's checkpoint (`importers`), and anything else
    is the path of a checkpoint. The `spec` of the result has the checkpoint's number of classes, padding and widths.
    Raises `UsageError`.
    """
    if spec.is_file and choice != "random":
        _require_own_weights(choice, spec)
        return Weights(files.path_of(spec), spec, WeightsInfo(origin="file", key=spec.sha256[:16], trained_on=None))
    if choice is None:
        return trained(spec, train(), recipe, on_progress)
    if choice == "random":
        return random(spec)
    if choice == "imagenet":
        return imported("torchvision", imagenet.fetch(spec), spec)
    kind, colon, file = choice.partition(":")
    if colon and kind in importers.KINDS:
        return imported(kind, expand_home(file), spec)
    return from_file(expand_home(choice), spec)


def require_usable(choice: str | None, spec: ModelSpec) -> None:
    """Raise `UsageError` if `resolve` would, as far as a file's first bytes and a checkpoint's metadata tell."""
    if spec.is_file and choice != "random":
        _require_own_weights(choice, spec)
    elif choice is None:
        _require_trainable(spec)
    elif choice == "imagenet":
        imagenet.require_published(spec)
    elif choice != "random":
        kind, colon, file = choice.partition(":")
        if colon and kind in importers.KINDS:
            content.read_head(expand_home(file))
        else:
            _adapt_to_checkpoint(expand_home(choice), spec)


def _require_own_weights(choice: str | None, spec: ModelSpec) -> None:
    if choice is not None and not spec.name.startswith(LIBRARIES):
        raise UsageError(f"{spec.name} has its weights in its file", "omit --weights, or give --weights random")


def _require_trainable(spec: ModelSpec) -> None:
    if spec.family != "mobilenet_v1":
        raise UsageError(
            f"{spec.label} has no default weights", "give --weights FILE, or --weights random to measure only speed"
        )


def from_file(path: Path, spec: ModelSpec) -> Weights:
    """Return a checkpoint of mbbench's network in the layout of any training script. Raises `UsageError`."""
    state = checkpoint.read(path)
    _, spec = fit.convert(None, state.tensors, _adapt_to_checkpoint(path, spec), path)
    # The digest alone is the key of the last weights, which were read before moving averages were preferred.
    key = content_key("averaged", _digest(path)) if state.averaged else _digest(path)[:16]
    return Weights(path, spec, WeightsInfo(origin="file", key=key, trained_on=None, notes=state.notes))


def _adapt_to_checkpoint(path: Path, spec: ModelSpec) -> ModelSpec:
    """Return `spec` with the checkpoint's padding and widths. Raises `UsageError` if alpha or variant differ."""
    saved = checkpoint.read_architecture(path)
    if saved is None:
        return spec
    if spec.family == "mobilenet_v1" and (saved.alpha, saved.variant) != (spec.alpha, spec.variant):
        raise UsageError(
            f"{path} holds a MobileNet of alpha {saved.alpha:g}, variant {saved.variant}",
            f"give --alpha {saved.alpha:g} --variant {saved.variant}",
        )
    return replace(spec, padding=saved.padding, widths=saved.widths)


def imported(kind: str, path: Path, spec: ModelSpec) -> Weights:
    """Return another framework's checkpoint, converted; `kind` is a key of `importers.KINDS`. Raises `UsageError`."""
    from mbbench.models import build, load_parameters

    source = importers.KINDS[kind].read(path)
    key = content_key("imported", kind, _digest(path), spec, importers.IMPORTER)
    state, spec = fit.convert(kind, source.tensors, spec, path)
    target = _path(key)
    if not checkpoint.is_intact(target):
        module = build(spec)
        load_parameters(module, state, str(path))
        checkpoint.save(target, module.state_dict(), _metadata(spec) | {"imported": kind})
    return Weights(target, spec, WeightsInfo(origin="imported", key=key, trained_on=None, notes=source.notes))


def random(spec: ModelSpec) -> Weights:
    """Return seeded random weights (He initialization). They suffice for measuring speed, but not accuracy."""
    key = content_key("random", spec, _SEED, _INITIALIZER)
    path = _path(key)
    if not checkpoint.is_intact(path):
        from mbbench.models import build, randomize

        module = build(spec)
        randomize(module, _SEED)
        checkpoint.save(path, module.state_dict(), _metadata(spec))
    return Weights(path, spec, WeightsInfo(origin="random", key=key, trained_on=None))


def trained(
    spec: ModelSpec, data: Dataset, recipe: Recipe, on_progress: Callable[[Progress], None] | None = None
) -> Weights:
    """Return weights trained on `data` by `recipe`, from the cache if they are there. Raises `UsageError`."""
    _require_trainable(spec)
    if data.classes == 1:
        raise UsageError(f"{data.name} has no labels to train on", "give --weights FILE, or a folder for each class")
    if spec.classes != data.classes:
        raise UsageError(
            f"the data has {data.classes} classes but the model has {spec.classes}",
            "give a model with the same number of classes",
        )
    key = content_key("trained", spec, data.key(spec.family), recipe, TRAINER)
    path = _path(key)
    if not checkpoint.is_intact(path):
        from mbbench.weights.train import train

        images, labels = data.arrays()
        state = train(
            spec, images, labels, recipe, on_progress, path.with_suffix(".partial"), data.preprocessing_for(spec.family)
        )
        checkpoint.save(path, state, _metadata(spec) | {"recipe": _json(recipe), "data": data.fingerprint})
    return Weights(path, spec, WeightsInfo(origin="trained", key=key, trained_on=data.fingerprint))


def derived(weights: Weights, key: str, make: Callable[[], tuple[dict[str, Tensor], ModelSpec]]) -> Weights:
    """Return the weights that `make` derives from `weights`, from the cache if they are there.

    `key` identifies everything else that they depend on. `make` returns their state dict and their spec.
    """
    path = _path(content_key("derived", weights.info.key, key))
    if not checkpoint.is_intact(path):
        state, spec = make()
        checkpoint.save(path, state, _metadata(spec) | {"from": weights.info.key})
    return Weights(path, _adapt_to_checkpoint(path, weights.spec), replace(weights.info, key=path.stem))


def _digest(path: Path) -> str:
    try:
        return cache.sha256_of(path)
    except OSError as error:
        raise UsageError(f"cannot read the checkpoint {path} ({error.strerror})", "give a readable file") from error


def _path(key: str) -> Path:
    return cache.root() / "weights" / f"{key}.safetensors"


def _metadata(spec: ModelSpec) -> dict[str, str]:
    """Return the metadata of a checkpoint: its spec and the versions of mbbench and torch that wrote it."""
    return {"spec": _json(spec), **{name: metadata.version(name) for name in ("mbbench", "torch")}}


def _json(value: ModelSpec | Recipe) -> str:
    return msgspec.json.encode(value).decode()
