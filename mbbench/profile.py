"""Run profiles: named default options in TOML files. Command-line options take precedence."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import msgspec

from mbbench import cache
from mbbench.errors import UsageError
from mbbench.families import FILE_FAMILIES, FILE_SUFFIX, Family, Variant, family_info
from mbbench.spec import Channels, Interpolation, ModelSpec, Precision, Settings, Triple

DataKind = Literal["digits", "random", "fashion-mnist", "folder"]

DEFAULT_BASELINES: tuple[Family, ...] = ("vgg16", "googlenet")
NAME_DATA = "give a folder of images, fashion-mnist:DIR or digits"


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """The options of a run. Several models, alphas, resolutions, backends or precisions make a grid of cells.

    Without `res`, each family has the resolution of its authors. `baselines`: families, or whether to measure the usual
    ones (`DEFAULT_BASELINES`).
    """

    description: str = ""
    model: tuple[Family, ...] = ("mobilenet_v1",)
    alpha: tuple[float, ...] = (1.0,)
    res: tuple[int, ...] = ()
    variant: Variant = "standard"
    backend: tuple[str, ...] = ("openvino",)
    device: str = ""
    precision: tuple[Precision, ...] = ("fp32",)
    calibration: str | None = None
    max_drop: float | None = None
    accuracy_control: bool = False
    require_effective: bool = False
    data: str = "digits"
    images: int | None = None
    skip_broken: bool = False
    weights: str | None = None
    mean: Triple | None = None
    std: Triple | None = None
    crop: float | None = None
    interpolation: Interpolation | None = None
    channels: Channels | None = None
    labels: str | None = None
    logits: str | None = None
    baselines: bool | tuple[Family, ...] = False
    settings: Settings = field(default_factory=Settings)

    @property
    def models(self) -> tuple[ModelSpec, ...]:
        """The grid's networks, by family, then width, then resolution. Raises `UsageError` for an invalid network.

        Alpha and variant apply to the families that have them; it is an error if none has them. Files are not read yet
        (`ModelSpec.sha256`).
        """
        families = {name: family_info(name) for name in self.model}
        no_alpha = not any(info.has_alpha for info in families.values())
        no_variant = not any(self.variant in info.variants for info in families.values())
        return tuple(
            ModelSpec("onnx", resolution=resolution, name=name)
            if info is FILE_FAMILIES["onnx"]
            else ModelSpec(name, alpha, resolution, variant=variant)
            for name, info in families.items()
            for variant in (self.variant if no_variant or self.variant in info.variants else "standard",)
            for alpha in (dict.fromkeys(self.alpha) if no_alpha or info.has_alpha else (1.0,))
            for resolution in dict.fromkeys(self.res or (info.resolution,))
        )

    @property
    def baseline_families(self) -> tuple[Family, ...]:
        """The families to measure as baselines."""
        if isinstance(self.baselines, bool):
            return DEFAULT_BASELINES if self.baselines else ()
        return self.baselines


def override(profile: Profile, settings: Mapping[str, Any], options: Mapping[str, Any]) -> Profile:
    """Return `profile` with the settings and options of the command line that are not None.

    If the options name other families than the profile, its alpha and variant are dropped unless one of them has them,
    and its resolution if all are networks in files or libraries, which have their own.
    """
    changes = {name: value for name, value in options.items() if value is not None}
    names = changes.get("model", profile.model)
    if names != profile.model:
        families = [family_info(name) for name in names]
        if not any(info.has_alpha for info in families):
            changes = {"alpha": (1.0,)} | changes
        if not any(profile.variant in info.variants for info in families):
            changes = {"variant": "standard"} | changes
        if all(info in FILE_FAMILIES.values() for info in families):
            changes = {"res": ()} | changes
    changed_settings = {name: value for name, value in settings.items() if value is not None}
    return replace(profile, settings=replace(profile.settings, **changed_settings), **changes)


def to_options(profile: Profile) -> list[str]:
    """Return command-line options for the profile's artifacts that work with any profile and in any checkout."""
    arguments = ["--data", _absolute(profile.data)]
    resolutions = sorted({model.resolution for model in profile.models if profile.res or not model.is_file})
    arguments += ["--res", ",".join(map(str, resolutions))] if resolutions else []
    models = tuple(str(Path(name).absolute()) if name.endswith(FILE_SUFFIX) else name for name in profile.model)
    for name, values in (
        ("--model", models),
        ("--backend", profile.backend),
        ("--precision", profile.precision),
    ):
        arguments += [name, ",".join(values)]
    families = [family_info(name) for name in profile.model]
    if any(info.has_alpha for info in families):
        arguments += ["--alpha", ",".join(map(str, profile.alpha))]
    if any(info.variants for info in families):
        arguments += ["--variant", profile.variant]
    for name, value in (
        ("--device", profile.device),
        ("--weights", profile.weights),
        ("--calibration", profile.calibration and _absolute(profile.calibration)),
        ("--mean", profile.mean and ",".join(map(str, profile.mean))),
        ("--std", profile.std and ",".join(map(str, profile.std))),
        ("--crop", profile.crop and str(profile.crop)),
        ("--interpolation", profile.interpolation),
        ("--channels", profile.channels),
        ("--logits", profile.logits),
        ("--labels", profile.labels and str(Path(profile.labels).expanduser().absolute())),
    ):
        arguments += [name, value] if value else []
    return [*arguments, "--skip-broken"] if profile.skip_broken else arguments


def _absolute(name: str) -> str:
    """Return the name of a data set with an absolute folder, so that another checkout finds it."""
    kind, folder = parse_data_name(name)
    if folder is None:
        return name
    return f"{kind}:{folder.absolute()}" if kind == "fashion-mnist" else str(folder.absolute())


def parse_data_name(name: str) -> tuple[DataKind, Path | None]:
    """Return what the value of --data or --calibration means: a kind of data set, and its folder if it has one.

    `digits` and `random` never mean a folder, even if there is one of that name; `./digits` does. Whether a folder
    exists is not checked. Raises `UsageError` if its name is empty or begins with the home of an unknown user.
    """
    if name == "digits":
        return "digits", None
    if name == "random":
        return "random", None
    prefix, colon, rest = name.partition(":")
    kind: DataKind = "fashion-mnist" if colon and prefix == "fashion-mnist" else "folder"
    folder = rest if kind == "fashion-mnist" else name
    if not folder:
        raise UsageError(f"there is no data folder {folder!r}", NAME_DATA)
    try:
        return kind, Path(folder).expanduser()
    except RuntimeError as error:
        raise UsageError(f"there is no data folder {folder!r}: {error}", NAME_DATA) from error


def folders() -> Iterator[Path]:
    """Yield the folders to search for profiles: ./profiles, then those of the installed package or its checkout."""
    package = Path(__file__).parent
    yield from (Path("profiles"), package / "profiles", package.parent / "profiles")


def names() -> tuple[str, ...]:
    """Return the names of all profiles, sorted."""
    return tuple(sorted({path.stem for folder in folders() for path in folder.glob("*.toml")}))


def read_profile(name: str) -> Profile:
    """Return the profile of that name, or in that .toml file. Raises `UsageError`."""
    if name.endswith(".toml"):
        return parse(_read(Path(name)), name)
    for folder in folders():
        path = folder / f"{name}.toml"
        if path.is_file():
            return parse(_read(path), str(path))
    raise UsageError(f"unknown profile: {name!r}", f"choose one of {', '.join(names())}, or give a .toml file")


def parse(text: str, source: str) -> Profile:
    """Return the profile in `text`; errors name `source`. Raises `UsageError`."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{source} is not TOML: {error}", "fix that line") from error
    except RecursionError as error:
        raise UsageError(f"{source} is nested too deeply", "fix its values") from error
    _refuse_unknown(content, Profile, source)
    _refuse_unknown(content.get("settings", {}), Settings, f"{source} [settings]")
    for name in ("model", "alpha", "res", "backend", "precision"):  # a single value needs no brackets
        if name in content and not isinstance(content[name], list):
            content[name] = [content[name]]
    try:
        return msgspec.convert(content, Profile, strict=True)
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, UsageError):
            raise error.__cause__ from None
        raise UsageError(f"{source}: {error}", "fix that value") from error


def _read(path: Path) -> str:
    try:
        return cache.read_small(path).decode()
    except OSError as error:
        raise UsageError(f"cannot read the profile {path} ({error.strerror})", "give a readable .toml file") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"cannot read the profile {path} ({error})", "give a readable .toml file") from error


def _refuse_unknown(table: Any, schema: type, source: str) -> None:
    """Raise `UsageError` for a key that `schema` does not have: msgspec ignores it, even if it is a typo."""
    keys = [entry.name for entry in fields(schema)]
    for key in table if isinstance(table, dict) else ():
        if key not in keys:
            close = difflib.get_close_matches(key, keys, n=1)
            raise UsageError(
                f"{source} has an unknown key: {key!r}",
                f"write {close[0]}" if close else f"choose one of {', '.join(keys)}",
            )
