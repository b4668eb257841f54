"""The weights of a run, whatever they come from, as one safetensors file with a content key."""

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
from mbbench.result import WeightsInfo
from mbbench.spec import ModelSpec, content_key
from mbbench.weights import checkpoint, imagenet, importers
from mbbench.weights.recipe import TRAINER, Progress, Recipe

if TYPE_CHECKING:
    from torch import Tensor, nn

_SEED = 0
_INITIALIZER = 1  # raise it when random weights become others


@dataclass(frozen=True, slots=True)
class Weights:
    """A checkpoint that fits `spec`, and where it comes from."""

    path: Path
    spec: ModelSpec
    info: WeightsInfo

    def build(self) -> nn.Module:
        """The network with these weights, in evaluation mode."""
        from mbbench.models import build, load_parameters

        module = build(self.spec)
        load_parameters(module, checkpoint.load(self.path), str(self.path))
        return module

    def sha256(self) -> str:
        """Of the file: two machines may have trained to the same key, and not to the same bits."""
        return _digest(self.path)


def resolve(
    choice: str | None,
    spec: ModelSpec,
    train: Callable[[], Dataset],
    recipe: Recipe,
    on_progress: Callable[[Progress], None] | None = None,
) -> Weights:
    """The weights that `choice` names, made or found.

    None trains on `train()`, "random" initializes, "imagenet" is what the network's authors published (`imagenet`),
    `KIND:FILE` imports another framework's checkpoint (`importers`), and anything else is a file of ours. The spec that
    comes back has the checkpoint's number of classes, its padding and its widths. Raises `UsageError`.
    """
    if choice is None:
        return trained(spec, train(), recipe, on_progress)
    if choice == "random":
        return random(spec)
    if choice == "imagenet":
        return imported("torchvision", imagenet.fetch(spec), spec)
    kind, colon, file = choice.partition(":")
    if colon and kind in importers.KINDS:
        return imported(kind, Path(file).expanduser(), spec)
    path = Path(choice).expanduser()
    own = _as_saved(path, replace(spec, classes=checkpoint.classes_in(path)))
    return Weights(path, own, WeightsInfo(origin="file", key=_digest(path)[:16], trained_on=None))


def _as_saved(path: Path, spec: ModelSpec) -> ModelSpec:
    """`spec` with the checkpoint's padding and widths; raises `UsageError` where its alpha or variant is another."""
    found = checkpoint.architecture_in(path)
    if found is None:
        return spec
    if spec.family == "mobilenet_v1" and (found.alpha, found.variant) != (spec.alpha, spec.variant):
        raise UsageError(
            f"{path} holds a MobileNet of alpha {found.alpha:g}, variant {found.variant}",
            f"give --alpha {found.alpha:g} --variant {found.variant}",
        )
    return replace(spec, padding=found.padding, widths=found.widths)


def imported(kind: str, path: Path, spec: ModelSpec) -> Weights:
    """Another framework's checkpoint as one of ours; `kind` is one of `importers.KINDS`."""
    from mbbench.models import build, load_parameters

    key = content_key("imported", kind, _digest(path), spec, importers.IMPORTER)
    state, own = importers.load(kind, path, spec)
    module = build(own)
    load_parameters(module, state, str(path))
    target = _path(key)
    if not checkpoint.is_whole(target):
        checkpoint.save(target, module.state_dict(), _facts(own) | {"imported": kind})
    return Weights(target, own, WeightsInfo(origin="imported", key=key, trained_on=None))


def random(spec: ModelSpec) -> Weights:
    """Seeded He initialization: right for speed, worthless for accuracy."""
    key = content_key("random", spec, _SEED, _INITIALIZER)
    path = _path(key)
    if not checkpoint.is_whole(path):
        from mbbench.models import build, randomize

        module = build(spec)
        randomize(module, _SEED)
        checkpoint.save(path, module.state_dict(), _facts(spec))
    return Weights(path, spec, WeightsInfo(origin="random", key=key, trained_on=None))


def trained(
    spec: ModelSpec, data: Dataset, recipe: Recipe, on_progress: Callable[[Progress], None] | None = None
) -> Weights:
    """Train on `data`, or find what was trained so before."""
    if spec.family != "mobilenet_v1":
        raise UsageError(
            f"{spec.label} has no embedded weights", "give --weights FILE, or --weights random for speed alone"
        )
    if data.classes == 1:
        raise UsageError(f"{data.name} has no labels to learn", "give --weights FILE, or a folder for each class")
    if spec.classes != data.classes:
        raise UsageError(f"the data has {data.classes} classes, the model {spec.classes}", "give both the same")
    key = content_key("trained", spec, data.fingerprint, recipe, TRAINER)
    path = _path(key)
    if not checkpoint.is_whole(path):
        from mbbench.weights.train import train

        images, labels = data.arrays()
        state = train(spec, images, labels, recipe, on_progress, path.with_suffix(".partial"))
        checkpoint.save(path, state, _facts(spec) | {"recipe": _json(recipe), "data": data.fingerprint})
    return Weights(path, spec, WeightsInfo(origin="trained", key=key, trained_on=data.fingerprint))


def derived(weights: Weights, key: str, make: Callable[[], tuple[dict[str, Tensor], ModelSpec]]) -> Weights:
    """What `make` makes of `weights`, kept under a key that names all it depends on; `make` says its spec too."""
    path = _path(content_key("derived", weights.info.key, key))
    if not checkpoint.is_whole(path):
        state, spec = make()
        checkpoint.save(path, state, _facts(spec) | {"from": weights.info.key})
    return Weights(path, _as_saved(path, weights.spec), replace(weights.info, key=path.stem))


def _digest(path: Path) -> str:
    try:
        return cache.sha256_of(path)
    except OSError as error:
        raise UsageError(f"cannot read the checkpoint {path} ({error.strerror})", "name another file") from error


def _path(key: str) -> Path:
    return cache.root() / "weights" / f"{key}.safetensors"


def _facts(spec: ModelSpec) -> dict[str, str]:
    """The checkpoint's metadata, for whoever finds the file."""
    return {"spec": _json(spec), **{name: metadata.version(name) for name in ("mbbench", "torch")}}


def _json(value: ModelSpec | Recipe) -> str:
    return msgspec.json.encode(value).decode()
