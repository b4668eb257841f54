"""Run profiles: named default options in TOML files. Command-line options take precedence."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from mbbench import cache
from mbbench.errors import UsageError, choose_one, describe_invalid
from mbbench.families import FILE_FAMILIES, FILE_SUFFIX, Family, Variant, family_info
from mbbench.spec import Channels, Interpolation, ModelSpec, Precision, Settings, Triple
from mbbench.spec.bounds import PROFILE, require_countable, require_fields

DataKind = Literal["digits", "random", "fashion-mnist", "folder"]

DEFAULT_BASELINES: tuple[Family, ...] = ("vgg16", "googlenet")
NAME_DATA = "give a folder of images, fashion-mnist:DIR or digits"


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """The options of a run. Several models, alphas, resolutions, backends or precisions make a grid of cells.

    Without `res`, each family has the resolution of its authors. `baselines`: families, or whether to measure the usual
    ones (`DEFAULT_BASELINES`). Raises `UsageError` for a number out of bounds.
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

    def __post_init__(self) -> None:
        require_fields(self, *PROFILE)
        for name in ("model", "alpha", "backend", "precision"):
            if not getattr(self, name):
                raise UsageError(f"--{name} has no value: []", "give at least one, or leave it out")

    @property
    def models(self) -> tuple[ModelSpec, ...]:
        """The grid's networks, by family, then width, then resolution. Raises `UsageError` for an invalid network.

        Alpha and variant apply to the families that have them; it is an error if none has them. Files are not read yet
        (`ModelSpec.sha256`).
        """
        families = {name: family_info(name) for name in self.model}
        no_alpha = not any(info.has_alpha for info in families.values())
        no_variant = not any(self.variant in info.variants for info in families.values())
        alphas, sides = dict.fromkeys(self.alpha), dict.fromkeys(self.res)
        widths = [len(alphas) if no_alpha or info.has_alpha else 1 for info in families.values()]
        require_countable("the grid has too many networks", sum(widths) * max(1, len(sides)))
        return tuple(
            ModelSpec("onnx", resolution=resolution, name=name)
            if info is FILE_FAMILIES["onnx"]
            else ModelSpec(name, alpha, resolution, variant=variant)
            for name, info in families.items()
            for variant in (self.variant if no_variant or self.variant in info.variants else "standard",)
            for alpha in (alphas if no_alpha or info.has_alpha else (1.0,))
            for resolution in (sides or (info.resolution,))
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
        ("--labels", profile.labels and str(expand_home(profile.labels).absolute())),
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
    return kind, expand_home(folder)


def expand_home(name: str) -> Path:
    """Return the path `name`, in which `~` and `~USER` are homes. Raises `UsageError` if there is no such user."""
    try:
        return Path(name).expanduser()
    except RuntimeError as error:
        raise UsageError(f"cannot find {name!r}: {error}", "write the whole path") from error


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
        with suppress(OSError):  # a name that is too long for a file
            if path.is_file():
                return parse(_read(path), str(path))
    raise UsageError(f"unknown profile: {name!r}", f"{choose_one(name, names())}, or give a .toml file")


def parse(text: str, source: str) -> Profile:
    """Return the profile in `text`; errors name `source`. Raises `UsageError`."""
    try:
        content = tomllib.loads(text)
    except ValueError as error:  # also of a number with thousands of digits
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
    except UsageError as error:
        raise UsageError(f"{source}: {error.cause}", error.remedy) from None
    except msgspec.ValidationError as error:
        raise _invalid(error, content, source) from error


def _invalid(error: msgspec.ValidationError, content: Any, source: str) -> UsageError:
    """Return the error for a value of the profile `content` that has a wrong type: `alpha must be a number: 'wide'`."""
    cause, place = describe_invalid(error), re.search(r"`\$\.(.*)`", str(error))
    if place is None:
        return UsageError(f"{source}: {cause}", "fix that value")
    kind: Any = Profile
    value = content
    for key in re.findall(r"[^.[\]]+", place[1]):
        if not isinstance(value, list):
            value, kind = value[key], get_type_hints(kind)[key]
            continue
        if len(value) == 1:  # the brackets may not be the user's
            cause = cause.replace(f"[{key}]", "", 1)
        value = value[int(key)]
    choices = _choices(kind)
    remedy = choose_one(str(value), choices) if "unknown" in cause and choices else "fix that value"
    return UsageError(f"{source}: {re.split(', not|: ', cause, maxsplit=1)[0]}: {value!r}", remedy)


def _choices(kind: Any) -> tuple[str, ...]:
    """Return the values of the `Literal` in a type."""
    inner = get_args(kind)
    return inner if get_origin(kind) is Literal else tuple(choice for part in inner for choice in _choices(part))


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
            raise UsageError(f"{source} has an unknown key: {key!r}", choose_one(key, keys))
