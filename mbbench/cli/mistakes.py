"""A mistake in a command line as one line in mbbench's own words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import typer

from mbbench.errors import UsageError, choose_one

PARSER_ERROR: type[Exception] = typer.BadParameter.__mro__[1]  # the base of all errors that parsing raises


def describe(error: Any) -> UsageError:
    """Return an error of Typer's parser, an instance of `PARSER_ERROR`, as an error with cause and remedy."""
    match type(error).__name__:
        case "NoSuchOption":
            return UsageError(
                f"unknown option: {error.option_name}", _suggestion(error, error.possibilities or (), "options")
            )
        case "BadOptionUsage":
            return _bad_use(error)
        case "MissingParameter":
            return _missing(error)
        case "BadParameter":
            return _bad_value(error)
    command = re.fullmatch(r"No such command '(.*)'\.?", error.message)
    if command is not None:
        similar = get_close_matches(command[1], error.ctx.command.list_commands(error.ctx))
        return UsageError(f"unknown command: {command[1]}", _suggestion(error, similar, "commands"))
    extra = re.fullmatch(r"Got unexpected extra argument(?:\(s\)|s)? \((.*)\)", error.message)
    if extra is not None:
        return UsageError(f"unexpected argument: {extra[1]}", _suggestion(error, (), "options"))
    return UsageError(error.message.rstrip("."), _suggestion(error, (), "options"))


def _suggestion(error: Any, similar: Sequence[str], kind: str) -> str:
    question = f"did you mean {similar[0]}? " if similar else ""
    return f"{question}`{error.ctx.command_path} --help` lists all {kind}"


def _bad_use(error: Any) -> UsageError:
    """Describe an option without the value that it needs, or a flag with a value."""
    name = error.option_name
    (option,) = (each for each in error.ctx.command.get_params(error.ctx) if name in (*each.opts, *each.secondary_opts))
    if option.is_flag:
        return UsageError(f"{name} takes no value", f"write {name} alone")
    return UsageError(f"{name} has no value", f"write {name} {option.metavar or 'N'}")


def _missing(error: Any) -> UsageError:
    name, metavar = _name(error.param), error.param.metavar
    if error.param.param_type_name == "argument":
        return UsageError(f"missing argument: {name}", f"`{error.ctx.command_path} --help` explains it")
    return UsageError(f"missing option: {name}", f"add {name} {metavar}")


def _bad_value(error: Any) -> UsageError:
    """Describe a value that is none of the choices, not a number or out of range."""
    name, message = _name(error.param), error.message
    choices = re.search(r"is not one of (.*)", message)
    if choices is not None:
        names = re.findall(r"'([^']*)'", choices[1])
        return UsageError(f"unknown value of {name}: {_value(error)}", choose_one(_value(error), names))
    if "integer" in message:
        return UsageError(f"{name} is not a whole number: {_value(error)}", "give digits alone, such as 32")
    if "a number" in message or "float" in message:
        return UsageError(f"{name} is not a number: {_value(error)}", "give one such as 0.5")
    low, high = getattr(error.param, "min", None), getattr(error.param, "max", None)
    if low is not None or high is not None:
        limits = f"at most {high}" if low is None else f"at least {low}" if high is None else f"{low} to {high}"
        return UsageError(f"{name} is out of range: {_value(error)}", f"give {limits}")
    return UsageError(f"{name} is invalid: {_value(error)}", f"`{error.ctx.command_path} --help` explains it")


def _name(parameter: Any) -> str:
    """Return an option's long name, or an argument's name."""
    argument = parameter.param_type_name == "argument"
    return str(parameter.metavar or parameter.name.upper() if argument else max(parameter.opts, key=len))


def _value(error: Any) -> str:
    """Return the value that was refused: Typer passes it in the cause, older versions in the message."""
    cause = getattr(error.__cause__, "errors", None)
    if cause is not None:
        return str(cause()[0]["input"]) or "''"
    match = re.match(r"'(.*?)' ", error.message)
    return error.message if match is None else match[1]
