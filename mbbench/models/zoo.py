"""Networks of torchvision and timm by name: built by the library, exported, and kept like networks in files.

    torchvision:resnet18    any of torchvision's classifiers
    timm:efficientnet_lite0 any of timm's

The library says the size of the input, the preprocessing and, for `--weights imagenet`, where the weights are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from mbbench.errors import UsageError, first_line
from mbbench.models import files
from mbbench.profile import expand_home
from mbbench.spec import Interpolation, ModelSpec, Preprocessing, content_key

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True)
class _Entry:
    """A library's network, and the input that its checkpoints are trained on."""

    module: nn.Module
    resolution: int
    preprocessing: Preprocessing


def spec_of(
    name: str, weights: str | None, resolution: int | None, read: Callable[[Path], dict[str, Any]]
) -> ModelSpec:
    """Return the network `LIBRARY:NAME` with `weights`; its normal form is then in the cache.

    `weights` is a checkpoint of that library's network, which `read` reads, `imagenet` (the library downloads and
    checks it), or `random`. `resolution` replaces the library's. Raises `UsageError`.
    """
    library, _, network = name.partition(":")
    if weights is None:
        raise UsageError(f"{name} has no default weights", "give --weights FILE, imagenet, or random for speed only")
    imported = _import(library)
    source = weights if weights in ("random", "imagenet") else files.digest(expand_home(weights))
    key = content_key(library, metadata.version(library), network, source, resolution, files.tools())

    def make() -> files.Made:
        build = _torchvision if library == "torchvision" else _timm
        entry = build(imported, network, pretrained=weights == "imagenet")
        if weights not in ("random", "imagenet"):
            _load(entry.module, read(expand_home(weights)), weights)
        return _normal_form(entry, network, resolution)

    return files.remember(key, name, make)


def _normal_form(entry: _Entry, network: str, resolution: int | None) -> files.Made:
    from mbbench.graphs.normalize import normalize
    from mbbench.graphs.onnx import to_onnx
    from mbbench.graphs.read import signature

    side = resolution or entry.resolution
    model = to_onnx(entry.module.eval(), side)
    source = signature(model, Path(network))
    content = normalize(model, source, side, side).SerializeToString(deterministic=True)
    return content, ModelSpec("onnx", resolution=side, classes=source.classes), entry.preprocessing


def _import(library: str) -> Any:
    try:
        return import_module("timm" if library == "timm" else "torchvision.models")
    except Exception as error:  # torchvision beside another build of PyTorch raises RuntimeError
        cause = first_line(error)
        raise UsageError(
            f"{library} cannot be imported ({cause})", "run `pip install mbbench[zoo]`, for the installed PyTorch"
        ) from error


def _torchvision(models: Any, name: str, *, pretrained: bool) -> _Entry:
    if name not in models.list_models(module=models):
        raise UsageError(f"torchvision has no classifier {name!r}", _near(name, models.list_models(module=models)))
    published = models.get_model_weights(name).DEFAULT
    usual = published.transforms()
    options = {"init_weights": True} if name in ("googlenet", "inception_v3") and not pretrained else {}
    module = _built(lambda: models.get_model(name, weights=published if pretrained else None, **options))
    side = usual.crop_size[0]
    return _Entry(
        module,
        side,
        Preprocessing(
            mean=tuple(usual.mean),
            std=tuple(usual.std),
            crop=side / usual.resize_size[0],
            interpolation=_interpolation(usual.interpolation.value),
        ),
    )


def _timm(timm: Any, name: str, *, pretrained: bool) -> _Entry:
    if not timm.is_model(name):
        raise UsageError(f"timm has no network {name!r}", _near(name, timm.list_models()))
    module = _built(lambda: timm.create_model(name, pretrained=pretrained, exportable=True))
    usual = timm.data.resolve_data_config({}, model=module)
    return _Entry(
        module,
        usual["input_size"][-1],
        Preprocessing(
            mean=tuple(usual["mean"]),
            std=tuple(usual["std"]),
            crop=usual["crop_pct"],
            interpolation=_interpolation(usual["interpolation"]),
        ),
    )


def _built(make: Any) -> nn.Module:
    """Return the library's network. A failed download, or a missing part of the library, becomes a `UsageError`."""
    try:
        module: nn.Module = make()
    except Exception as error:
        cause = first_line(error)
        raise UsageError(f"the library cannot build the network ({cause})", "give --weights FILE or random") from error
    return module


def _load(module: nn.Module, tensors: dict[str, Any], path: str) -> None:
    """Load the tensors of a checkpoint, which must be exactly those of the library's network."""
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        cause = " ".join(str(error).split())[:200]
        raise UsageError(f"{path} does not fit the network ({cause})", "give a checkpoint of that network") from error


def _interpolation(name: str) -> Interpolation:
    return name if name in get_args(Interpolation) else "bicubic"  # type: ignore[return-value]


def _near(name: str, names: list[str]) -> str:
    """Return a remedy with the names that are most like `name`."""
    import difflib

    return f"choose one such as {', '.join(difflib.get_close_matches(name, names, n=3, cutoff=0.3) or names[:3])}"
