"""Options that several commands share, each declared once, and the profile that those about cells come to."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args, get_type_hints

import typer

from mbbench.errors import UsageError
from mbbench.spec import Family, Scenario, Variant, seconds_of

if TYPE_CHECKING:
    from mbbench.profile import Profile

_Number = TypeVar("_Number", int, float)
_Command = Callable[..., None]

RESULTS = "reports/results.jsonl"

Model = Annotated[Family | None, typer.Option("--model", help="The network.", show_default="mobilenet_v1")]
Alpha = Annotated[float | None, typer.Option("--alpha", help="MobileNet's width multiplier.", show_default="1.0")]
Res = Annotated[int | None, typer.Option("--res", help="Side of the square input, in pixels.", show_default="224")]
PaperVariant = Annotated[
    Variant | None, typer.Option("--variant", help="The paper's variants (Tables 4, 5).", show_default="standard")
]
Data = Annotated[
    str | None,
    typer.Option("--data", metavar="DATA", help="digits, fashion-mnist:DIR, or a folder.", show_default="digits"),
]
Device = Annotated[str | None, typer.Option("--device", help="See `mbbench backends`.", show_default="first")]
Threads = Annotated[int | None, typer.Option("--threads", help="Threads, each pinned.", show_default="1")]
Results = Annotated[Path, typer.Option("--results", help="Where results are appended.")]
Stored = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[RESULTS]...", help="Files that `mbbench run` appended to.", show_default=RESULTS),
]
Plan = Annotated[bool, typer.Option("--plan", help="Show the cells and an estimate; do nothing.")]
FORMAT = typer.Option("--format", help="Format of standard output.")
Format = Annotated[Literal["table", "json", "csv", "markdown"], FORMAT]
Checkpoint = Annotated[
    Path | None, typer.Option("-o", "--output", metavar="FILE", help="Also copy the checkpoint to this file.")
]
_Profile = Annotated[str, typer.Option("--profile", help="A run profile: its name, or a .toml file.")]


@dataclass(frozen=True, slots=True)
class _About:
    """An option of commands about cells: its type for Typer, and what its value becomes in a profile."""

    annotation: Any
    convert: Callable[[Any], Any] = lambda value: value
    setting: str | None = None  # of the profile's settings; None: of the profile itself
    field: str | None = None  # of the profile, where it has another name


def _text(name: str, help: str, default: str | bool = True, metavar: str | None = None) -> Any:
    return Annotated[str | None, typer.Option(name, metavar=metavar, help=help, show_default=default)]


def _number(name: str, help: str, default: str) -> Any:
    return Annotated[int | None, typer.Option(name, help=help, show_default=default)]


def _flag(name: str, help: str) -> Any:
    return Annotated[bool | None, typer.Option(name, help=help)]


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


def _scenarios(text: str) -> tuple[str, ...]:
    return get_args(Scenario) if text == "all" else _names(text)


def _numbers(option: str, kind: Callable[[str], _Number], text: str) -> tuple[_Number, ...]:
    """`128,224`, or `128-224+32` for a range with a step."""
    try:
        return tuple(kind(one) for part in text.split(",") for one in _spread(part))
    except ValueError:
        example = "0.5,1.0 or 0.25-1+0.25" if kind is float else "128,224 or 128-224+32"
        raise UsageError(f"{option} {text} does not read as numbers", f"write them like {option} {example}") from None


def _spread(part: str) -> list[str]:
    match = re.fullmatch(r"([\d.]+)-([\d.]+)\+([\d.]+)", part.strip())
    if match is None:
        return [part]
    try:
        first, last, step = map(Decimal, match.groups())
        return [str(first + step * count) for count in range(int((last - first) / step) + 1)]
    except ArithmeticError as error:
        raise ValueError(part) from error


_OPTIONS: Mapping[str, _About] = {
    "model": _About(Model, lambda family: (family,)),
    "models": _About(
        _text("--model", "mobilenet_v1, vgg16, googlenet.", "mobilenet_v1", "NAMES"), _names, field="model"
    ),
    "alpha": _About(
        _text("--alpha", "MobileNet's width multipliers: 0.25,0.5 or 0.25-1+0.25.", "1.0", "NUMBERS"),
        partial(_numbers, "--alpha", float),
    ),
    "res": _About(
        _text("--res", "Sides of the square input: 128,224 or 128-224+32.", "224", "NUMBERS"),
        partial(_numbers, "--res", int),
    ),
    "variant": _About(PaperVariant),
    "backend": _About(_text("--backend", "Names with commas, or all.", "openvino", "NAMES"), _names),
    "device": _About(Device),
    "threads": _About(Threads, setting="threads"),
    "batch": _About(_number("--batch", "Images in a timed call.", "1"), setting="batch"),
    "data": _About(Data),
    "images": _About(_number("--images", "Evaluate on so many.", "all")),
    "weights": _About(
        _text("--weights", "FILE may be keras:FILE.h5, timm: or torchvision:.", "train", "FILE|random|imagenet")
    ),
    "precision": _About(_text("--precision", "fp32, bf16, fp16, int8.", "fp32", "NAMES"), _names),
    "calibration": _About(_text("--calibration", "To calibrate INT8 with.", "DATA's training split", "DATA|random")),
    "max_drop": _About(
        Annotated[
            float | None,
            typer.Option("--max-drop", metavar="POINTS", help="Fail where more top-1 is lost against fp32."),
        ]
    ),
    "accuracy_control": _About(_flag("--accuracy-control", "Keep layers in fp32 until --max-drop holds.")),
    "require_effective": _About(_flag("--require-effective", "Fail a cell that ran in another precision.")),
    "sustain": _About(
        _text("--sustain", "Also run so long (10m): does it throttle?", metavar="TIME"), seconds_of, setting="sustain_s"
    ),
    "idle": _About(
        _text("--idle", "Also pause up to so long (100ms): waking up.", metavar="TIME"),
        lambda text: seconds_of(text) * 1e3,
        setting="idle_ms",
    ),
    "scenario": _About(
        _text("--scenario", "MLPerf's: single-stream, multi-stream, offline, server, or all.", metavar="NAMES"),
        _scenarios,
        setting="scenarios",
    ),
    "streams": _About(_number("--streams", "Requests computed at once.", "the runtime's choice"), setting="streams"),
    "bound": _About(
        _text("--bound", "That the server's p99 must keep.", "15ms", "TIME"),
        lambda text: seconds_of(text) * 1e3,
        setting="bound_ms",
    ),
    "baselines": _About(_flag("--baselines/--no-baselines", "Measure VGG16 and GoogLeNet too.")),
}
NETWORK = ("alpha", "res", "variant")
ARTIFACT = ("backend", "device", "data", "weights", "precision", "calibration")
TIMING = ("threads", "batch")
LOAD = ("scenario", "streams", "bound")
ACCURACY = ("images", "max_drop", "accuracy_control", "require_effective")


def about_cells(*names: str, profile: str = "default", **fixed: object) -> Callable[[_Command], _Command]:
    """Give a command the options `names` and --profile, and hand it, first, the profile that they come to.

    `profile` is the one that is taken by default, `fixed` what the command has settled itself.
    """

    def decorate(command: _Command) -> _Command:
        _, *own = signature(command).parameters.values()
        hints = get_type_hints(command, localns={"Profile": object}, include_extras=True)
        shared = [Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=_OPTIONS[name].annotation)
                  for name in names]  # fmt: skip
        shared.append(Parameter("profile", Parameter.KEYWORD_ONLY, default=profile, annotation=_Profile))
        own = [one.replace(kind=Parameter.KEYWORD_ONLY, annotation=hints[one.name]) for one in own]

        def called(**given: Any) -> None:
            options = {name: given.pop(name) for name in names}
            command(_profile(given.pop("profile"), options, fixed), **given)

        parameters = [*shared, *own]
        called.__name__, called.__doc__ = command.__name__, command.__doc__
        called.__annotations__ = {one.name: one.annotation for one in parameters}
        called.__signature__ = Signature(parameters)  # type: ignore[attr-defined]  # what Typer reads
        return called

    return decorate


def _profile(name: str, options: Mapping[str, Any], fixed: Mapping[str, object]) -> Profile:
    """The profile called `name` with the options in its place."""
    from mbbench.profile import load, override

    settings: dict[str, Any] = {}
    fields = dict(fixed)
    for key, value in options.items():
        about = _OPTIONS[key]
        target, field = (fields, about.field or key) if about.setting is None else (settings, about.setting)
        target[field] = None if value is None else about.convert(value)
    return override(load(name), settings, fields)
