"""Run profiles: named defaults in TOML, data only. Command-line options win over them."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import msgspec

from mbbench.errors import UsageError
from mbbench.spec import Family, ModelSpec, Precision, Settings, Variant


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What a run takes where the command line is silent. Several of a kind make a grid of networks."""

    description: str = ""
    model: tuple[Family, ...] = ("mobilenet_v1",)
    alpha: tuple[float, ...] = (1.0,)
    res: tuple[int, ...] = (224,)
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
    weights: str | None = None
    baselines: bool = False
    settings: Settings = field(default_factory=Settings)

    @property
    def models(self) -> tuple[ModelSpec, ...]:
        """The networks, by width and then resolution. Raises `UsageError` for one that cannot be built.

        Of several families alpha and variant are MobileNet's alone.
        """
        return tuple(
            ModelSpec(family, alpha, size, variant=self.variant if own else "standard")
            for family in dict.fromkeys(self.model)
            for own in (family == "mobilenet_v1" or len(self.model) == 1,)
            for alpha in (dict.fromkeys(self.alpha) if own else (1.0,))
            for size in dict.fromkeys(self.res)
        )


def override(profile: Profile, settings: Mapping[str, Any], options: Mapping[str, Any]) -> Profile:
    """The profile with what the command line says in its place; None is silence.

    A profile's alpha and variant are MobileNet's: they do not carry over to another network named instead.
    """
    given = {name: value for name, value in options.items() if value is not None}
    family = given.get("model", profile.model)
    if family != profile.model and "mobilenet_v1" not in family:
        given = {"alpha": (1.0,), "variant": "standard"} | given
    changed = {name: value for name, value in settings.items() if value is not None}
    return replace(profile, settings=replace(profile.settings, **changed), **given)


def options(profile: Profile) -> list[str]:
    """The command line that asks any profile for this one's artifacts, wherever it is run."""
    given = ["--data", _absolute(profile.data), "--res", ",".join(map(str, profile.res))]
    for name, chosen in (
        ("--model", profile.model),
        ("--backend", profile.backend),
        ("--precision", profile.precision),
    ):
        given += [name, ",".join(chosen)]
    if "mobilenet_v1" in profile.model:
        given += ["--alpha", ",".join(map(str, profile.alpha)), "--variant", profile.variant]
    for name, value in (
        ("--device", profile.device),
        ("--weights", profile.weights),
        ("--calibration", profile.calibration and _absolute(profile.calibration)),
    ):
        given += [name, value] if value else []
    return given


def _absolute(data: str) -> str:
    """Data outside the repository stays where it is; weights are the commit's own."""
    kind, colon, folder = data.rpartition(":")
    return f"{kind}{colon}{Path(folder).resolve()}" if Path(folder).exists() else data


def folders() -> Iterator[Path]:
    """Where profiles are looked up: ./profiles, then the copy installed with the package or its checkout."""
    package = Path(__file__).parent
    yield from (Path("profiles"), package / "profiles", package.parent / "profiles")


def names() -> tuple[str, ...]:
    return tuple(sorted({path.stem for folder in folders() for path in folder.glob("*.toml")}))


def load(name: str) -> Profile:
    """The profile in the file `name`, or the one called so; raises `UsageError`."""
    if name.endswith(".toml"):
        return parse(_read(Path(name)), name)
    for folder in folders():
        path = folder / f"{name}.toml"
        if path.is_file():
            return parse(_read(path), str(path))
    raise UsageError(f"there is no profile {name!r}", f"choose one of {', '.join(names())}, or name a .toml file")


def parse(text: str, source: str) -> Profile:
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{source} is not TOML: {error}", "mend that line") from error
    _refuse_unknown(content, Profile, source)
    _refuse_unknown(content.get("settings", {}), Settings, f"{source} [settings]")
    for name in ("model", "alpha", "res", "backend", "precision"):  # one may stand without brackets
        if name in content and not isinstance(content[name], list):
            content[name] = [content[name]]
    try:
        return msgspec.convert(content, Profile, strict=True)
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, UsageError):
            raise error.__cause__ from None
        raise UsageError(f"{source}: {error}", "mend that value") from error


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the profile {path} ({error})", "name a readable .toml file") from error


def _refuse_unknown(table: Any, shape: type, source: str) -> None:
    """msgspec ignores what it does not know; a misspelt setting must not pass silently."""
    known = [entry.name for entry in fields(shape)]
    for key in table if isinstance(table, dict) else ():
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            raise UsageError(
                f"{source} has an unknown key {key!r}",
                f"did you mean {close[0]}?" if close else f"known keys: {', '.join(known)}",
            )
