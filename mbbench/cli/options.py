"""Options that several commands share, and the decorator that turns the options about cells into a profile."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_type_hints

import typer

from mbbench.cli import inputs
from mbbench.cli.quantities import parse_numbers, time_within_bounds
from mbbench.families import FAMILIES, Family, Variant
from mbbench.spec import Scenario

if TYPE_CHECKING:
    from mbbench.profile import Profile

_Command = Callable[..., None]

DEFAULT_RESULTS = "reports/results.jsonl"


def format_option(choices: Any) -> Any:
    """Return the option --format, whose values are those of the `Literal` type `choices`."""
    *names, last = get_args(choices)
    return typer.Option("--format", metavar="FORMAT", help=f"Format of standard output: {', '.join(names)} or {last}.")


_TableFormat = Literal["table", "json", "csv", "markdown"]
Format = Annotated[_TableFormat, format_option(_TableFormat)]

_NETWORKS = ", ".join((*FAMILIES, "FILE.onnx", "torchvision:NAME, timm:NAME"))
_VARIANTS = "; ".join(f"{name}: {', '.join(info.variants)}" for name, info in FAMILIES.items() if info.variants)
_LARGER = [f"{name}: {info.resolution}" for name, info in FAMILIES.items() if info.resolution != 224]
_SIDE = "; ".join(["224", *_LARGER])  # default of --res
Model = Annotated[
    Family | None,
    typer.Option("--model", metavar="NAME", help=f"Network: {_NETWORKS}.", show_default="mobilenet_v1"),
]
Alpha = Annotated[float | None, typer.Option("--alpha", help="Width multiplier of MobileNets.", show_default="1.0")]
Res = Annotated[int | None, typer.Option("--res", help="Side of the square input, in pixels.", show_default=_SIDE)]
NetworkVariant = Annotated[
    Variant | None,
    typer.Option("--variant", metavar="NAME", help=f"Variant of the network ({_VARIANTS}).", show_default="standard"),
]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="DATA",
        help="Data set: digits, fashion-mnist:DIR or a folder of images.",
        show_default="digits",
    ),
]
SkipBroken = Annotated[bool | None, typer.Option("--skip-broken", help="Leave out images that cannot be decoded.")]
Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="NAME",
        help="Device of the backend, as listed by `mbbench backends`.",
        show_default="the backend's first",
    ),
]
Threads = Annotated[
    int | None, typer.Option("--threads", help="Number of threads, each pinned to a CPU.", show_default="1")
]
ResultsFile = Annotated[Path, typer.Option("--results", metavar="FILE", help="File to which results are appended.")]
StoredResults = Annotated[
    list[Path] | None,
    typer.Argument(metavar="RESULTS", help="Result files written by `mbbench run`.", show_default=DEFAULT_RESULTS),
]
Plan = Annotated[bool, typer.Option("--plan", help="Show the cells and the estimated time; measure nothing.")]
CheckpointCopy = Annotated[
    Path | None, typer.Option("-o", "--output", metavar="FILE", help="File to which the checkpoint is copied.")
]
_ProfileName = Annotated[
    str, typer.Option("--profile", metavar="NAME|FILE", help="Run profile: a name (e.g. quick) or a .toml file.")
]


@dataclass(frozen=True, slots=True)
class _CellOption:
    """An option about cells: its annotation for Typer, and the field of the profile that it sets."""

    annotation: Any
    convert: Callable[[Any], Any] = lambda value: value
    setting: str | None = None  # the field of the profile's settings; None: the option sets the profile itself
    field: str | None = None  # the field of the profile, if its name differs from the option's


def _text(name: str, help: str, default: str | bool = True, metavar: str | None = None) -> Any:
    """Return the annotation of an optional text."""
    return Annotated[str | None, typer.Option(name, metavar=metavar, help=help, show_default=default)]


def _integer(name: str, help: str, default: str) -> Any:
    """Return the annotation of an optional whole number."""
    return Annotated[int | None, typer.Option(name, help=help, show_default=default)]


def _flag(name: str, help: str) -> Any:
    """Return the annotation of a flag; None, not False, if it is absent."""
    return Annotated[bool | None, typer.Option(name, help=help)]


def split_names(text: str) -> tuple[str, ...]:
    """Return the names in a comma-separated list, without spaces around them."""
    return tuple(name.strip() for name in text.split(","))


def _parse_scenarios(text: str) -> tuple[str, ...]:
    return get_args(Scenario) if text == "all" else split_names(text)


_CELL_OPTIONS: Mapping[str, _CellOption] = {
    "model": _CellOption(Model, lambda family: (family,)),
    "models": _CellOption(
        _text("--model", f"Networks, comma-separated: {_NETWORKS}.", "mobilenet_v1", "NAMES"),
        split_names,
        field="model",
    ),
    "alpha": _CellOption(
        _text("--alpha", "Width multipliers of MobileNets, e.g. 0.25,0.5 or 0.25-1+0.25.", "1.0", "NUMBERS"),
        partial(parse_numbers, "--alpha", float),
    ),
    "res": _CellOption(
        _text("--res", "Sides of the square input, in pixels, e.g. 128,224 or 128-224+32.", _SIDE, "NUMBERS"),
        partial(parse_numbers, "--res", int),
    ),
    "variant": _CellOption(NetworkVariant),
    "backend": _CellOption(
        _text("--backend", "Backends, comma-separated, or all installed ones.", "openvino", "NAMES|all"),
        split_names,
    ),
    "device": _CellOption(Device),
    "threads": _CellOption(Threads, setting="threads"),
    "batch": _CellOption(_integer("--batch", "Number of images in one timed call.", "1"), setting="batch"),
    "data": _CellOption(Data),
    "skip_broken": _CellOption(SkipBroken),
    "images": _CellOption(_integer("--images", "Number of test images.", "all")),
    "weights": _CellOption(
        _text(
            "--weights",
            "Checkpoint (FILE, keras:FILE, timm:FILE or torchvision:FILE), random, or imagenet.",
            "trained on DATA",
            "WEIGHTS",
        )
    ),
    "precision": _CellOption(
        _text("--precision", "Precisions, comma-separated: fp32, bf16, fp16, int8.", "fp32", "NAMES"), split_names
    ),
    "calibration": _CellOption(
        _text("--calibration", "Data set to calibrate INT8 with.", "DATA's training split", "DATA|random")
    ),
    "max_drop": _CellOption(
        Annotated[
            float | None,
            typer.Option(
                "--max-drop",
                metavar="POINTS",
                help="Fail if top-1 drops by more percentage points than this against fp32 (e.g. 0.5).",
            ),
        ]
    ),
    "accuracy_control": _CellOption(
        _flag("--accuracy-control", "Keep the most harmful layers in fp32 until --max-drop is met.")
    ),
    "require_effective": _CellOption(
        _flag("--require-effective", "Fail a cell that ran in another precision than requested.")
    ),
    "sustain": _CellOption(
        _text("--sustain", "Also run back to back for this long (e.g. 10m), to show throttling.", metavar="TIME"),
        partial(time_within_bounds, "sustain_s"),
        setting="sustain_s",
    ),
    "idle": _CellOption(
        _text(
            "--idle", "Also call after pauses of up to this long (e.g. 100ms), to show wake-up cost.", metavar="TIME"
        ),
        partial(time_within_bounds, "idle_ms"),
        setting="idle_ms",
    ),
    "scenario": _CellOption(
        _text(
            "--scenario",
            "MLPerf scenarios, comma-separated: single-stream, multi-stream, offline, server; or all.",
            metavar="NAMES|all",
        ),
        _parse_scenarios,
        setting="scenarios",
    ),
    "streams": _CellOption(
        _integer(
            "--streams", "Number of requests computed at once (offline and server scenarios).", "the runtime's choice"
        ),
        setting="streams",
    ),
    "bound": _CellOption(
        _text("--bound", "Latency bound on the server scenario's p99.", "15ms", "TIME"),
        partial(time_within_bounds, "bound_ms"),
        setting="bound_ms",
    ),
    "baselines": _CellOption(_flag("--baselines/--no-baselines", "Also measure VGG16 and GoogLeNet.")),
    "against": _CellOption(
        _text("--against", "Also measure these networks as baselines, comma-separated.", metavar="NAMES"),
        split_names,
        field="baselines",
    ),
    **{name: _CellOption(*option) for name, option in inputs.OPTIONS.items()},
}
NETWORK = ("alpha", "res", "variant")
ARTIFACT = ("backend", "device", "data", "skip_broken", "weights", *inputs.OPTIONS, "precision", "calibration")
TIMING = ("threads", "batch")
LOAD = ("scenario", "streams", "bound")
ACCURACY = ("images", "max_drop", "accuracy_control", "require_effective")


def cell_options(*names: str, profile: str = "default", **fixed: object) -> Callable[[_Command], _Command]:
    """Return a decorator that adds the cell options `names` and --profile to a command.

    The command's first parameter receives the profile that these options describe. `profile` is the default of
    --profile; `fixed` are the fields of the profile that the command sets itself.
    """

    def decorate(command: _Command) -> _Command:
        shared = [_keyword_only(name, None, _CELL_OPTIONS[name].annotation) for name in names]
        shared.append(_keyword_only("profile", profile, _ProfileName))
        parameters = [*shared, *_parameters_after_profile(command)]

        def wrapper(**values: Any) -> None:
            options = {name: values.pop(name) for name in names}
            command(_build_profile(values.pop("profile"), options, fixed), **values)

        wrapper.__name__, wrapper.__doc__ = command.__name__, command.__doc__
        wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        wrapper.__signature__ = Signature(parameters)  # type: ignore[attr-defined]  # Typer reads it
        return wrapper

    return decorate


def _keyword_only(name: str, default: object, annotation: Any) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _parameters_after_profile(command: _Command) -> list[Parameter]:
    """Return the parameters of `command` after the first one, the profile, with their annotations resolved."""
    _, *parameters = signature(command).parameters.values()
    hints = get_type_hints(command, localns={"Profile": object}, include_extras=True)
    return [_keyword_only(parameter.name, parameter.default, hints[parameter.name]) for parameter in parameters]


def _build_profile(name: str, options: Mapping[str, Any], fixed: Mapping[str, object]) -> Profile:
    """Return the profile called `name`, overridden by `fixed` and `options`. Raises `UsageError`."""
    from mbbench.profile import override, read_profile

    settings: dict[str, Any] = {}
    fields = dict(fixed)
    for key, value in options.items():
        if value is not None:
            option = _CELL_OPTIONS[key]
            target = fields if option.setting is None else settings
            target[option.setting or option.field or key] = option.convert(value)
    return override(read_profile(name), settings, fields)
