"""The help of a command as plain text: the arguments, then the options in panels by subject."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

# Panel -> its options. A command shows those that it has, in this order.
PANELS = {
    "Everyday options": ("--model", "--alpha", "--res", "--backend", "--precision"),
    "Network": (
        "--variant", "--weights", "--classes", "--logits", "--artifact", "--trust", "--layers", "--paper", "--prune",
        "--max-latency", "--teacher", "--teacher-alpha", "--qat", "--epochs",
    ),
    "Images": (
        "--data", "--images", "--skip-broken", "--labels", "--mean", "--std", "--channels", "--crop", "--interpolation",
    ),
    "Exported file": ("--to", "--compute-capability"),
    "Accuracy": ("--calibration", "--max-drop", "--accuracy-control", "--require-effective"),
    "Measuring": (
        "--device", "--threads", "--batch", "--time", "--rounds", "--sustain", "--idle", "--baselines", "--against",
        "--resume", "--cluster", "--predict", "--max-cells", "--resources", "--profile",
    ),
    "Load": ("--scenario", "--streams", "--bound"),
    "Limits": ("--max-p99", "--min-top1", "--max-rss", "--max-added-rss", "--max-size", "--published"),
    "Comparison": ("--baseline", "--base-ref", "--fail-on", "--margin", "--strict", "--anyway"),
    "Output": ("--results", "--output", "--format", "--plan"),
}  # fmt: skip
MAX_WIDTH = 100  # longer lines are hard to read
_NAMES_SHARE = 3  # names take at most a third of the width; a longer one gets a line of its own
_INDENT, _GAP = 2, 2


def usage_pieces(parameters: Sequence[Any]) -> list[str]:
    """Return the words after the command's name in its usage line."""
    return ["[OPTIONS]", *(_usage(each) for each in parameters if each.param_type_name == "argument")]


def write_command(formatter: Any, context: Any, text: str, parameters: Sequence[Any]) -> None:
    """Write the paragraphs of `text`, then the arguments and options in `parameters`."""
    for paragraph in text.split("\n\n"):
        formatter.write_paragraph()
        write_lines(formatter, _wrap(" ".join(paragraph.split()), formatter.width - _INDENT), _INDENT)
    arguments = [_argument_record(each) for each in parameters if each.param_type_name == "argument"]
    options = {_long_name(each): each for each in parameters if each.param_type_name == "option"}
    panels = {title: [options.pop(name) for name in names if name in options] for title, names in PANELS.items()}
    panels["Help"] = list(options.values())
    write_definitions(formatter, "Arguments", arguments)
    for title, members in panels.items():
        write_definitions(formatter, title, [_option_record(context, option) for option in members])


def write_definitions(formatter: Any, title: str, rows: Sequence[tuple[str, str]]) -> None:
    """Write a section of names and their descriptions, if there are any; lines are broken between words only."""
    if not rows:
        return
    limit = formatter.width // _NAMES_SHARE
    names = max((len(name) for name, _ in rows if len(name) <= limit), default=limit)
    with formatter.section(title):
        for name, text in rows:
            first, *rest = _wrap(text, formatter.width - _INDENT - names - _GAP) or [""]
            lines = [f"{name:<{names}}{' ' * _GAP}{first}"] if len(name) <= names else [name, *_indent([first], names)]
            write_lines(formatter, [*lines, *_indent(rest, names)], _INDENT)


def write_lines(formatter: Any, lines: Iterable[str], indent: int) -> None:
    """Write `lines`, each indented by `indent` characters."""
    for line in lines:
        formatter.write(f"{' ' * indent}{line}".rstrip() + "\n")


def _indent(lines: Iterable[str], names: int) -> Iterator[str]:
    return (" " * (names + _GAP) + line for line in lines)


def _wrap(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def _long_name(option: Any) -> str:
    return str(max(option.opts, key=len))


def _argument_record(argument: Any) -> tuple[str, str]:
    return _argument_name(argument), _with_default(argument, None)


def _argument_name(argument: Any) -> str:
    name = argument.metavar or argument.name.upper()
    return f"{name}..." if argument.nargs == -1 else str(name)


def _usage(argument: Any) -> str:
    name = _argument_name(argument)
    return name if argument.required else f"[{name}]"


def _option_record(context: Any, option: Any) -> tuple[str, str]:
    names = ", ".join(sorted(option.opts, key=len))
    if option.is_flag:
        return " / ".join([names, *option.secondary_opts]), _with_default(option, None)
    default = option.get_default(context, call=False)
    return f"{names} {option.metavar or 'N'}", _with_default(option, default)


def _with_default(parameter: Any, default: object) -> str:
    """Return the help of a parameter, with its default or the word `required` in brackets."""
    text = parameter.show_default if isinstance(parameter.show_default, str) else default
    if parameter.required:
        return f"{parameter.help} [required]"
    return parameter.help if text is None else f"{parameter.help} [default: {text}]"
