"""The errors that mbbench reports, each with a cause, a remedy and an exit code.

    MbbenchError            1  internal error (the base class; raised itself only for bugs)
    +-- UsageError          2  invalid option, file, folder, checkpoint or profile
    +-- RegressionError     3  `mbbench check`: a cell is slower, bigger or less accurate than its limits allow
    +-- InconclusiveError   4  `mbbench check --strict`: a cell could not be shown to be within its limits
    +-- RequirementError    5  a requirement is not met: parity with PyTorch, accuracy, executed precision, the limits
                               of `mbbench choose` and `fit`, the agreement of a report with its records, or top-1
                               after `mbbench compress`
    +-- BackendError        6  a backend, its runtime or its device is missing, or rejects the model
    +-- CellsFailedError    7  some cells failed; the others were measured and stored
    +-- IncomparableError   8  `mbbench compare`: results of different machines, runtimes or settings

An interrupted run stores what it has measured and exits with 130 (Ctrl-C), 143 (SIGTERM) or 129 (SIGHUP). A command
whose reader closes the pipe, such as `head`, exits with 141.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar

EXIT_CLOSED_PIPE = 141
EXIT_INTERRUPTED = 130
_MAX_LENGTH = 2000  # of a cause, which may quote what the user typed
_NEAR = 0.7  # similarity of a name that may have been meant, 0 to 1
_KINDS = {  # of msgspec
    "int": "a whole number", "float": "a number", "str": "text", "bool": "true or false", "array": "a list",
    "object": "a table", "null": "nothing",
}  # fmt: skip

# Control characters, which a terminal obeys; marks that reorder or hide text; line separators; what XML cannot hold.
UNSAFE_TEXT = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff\ufffe\uffff]"
)


class MbbenchError(Exception):
    """An error that is printed as one line: `cause; remedy`."""

    exit_code: ClassVar[int] = 1

    def __init__(self, cause: str, remedy: str) -> None:
        super().__init__(cause, remedy)
        self.cause = one_line(cause)
        self.remedy = one_line(remedy)

    def __str__(self) -> str:
        return f"{self.cause}; {self.remedy}"


class UsageError(MbbenchError):
    exit_code = 2


class RegressionError(MbbenchError):
    exit_code = 3


class InconclusiveError(MbbenchError):
    exit_code = 4


class RequirementError(MbbenchError):
    exit_code = 5


class BackendError(MbbenchError):
    exit_code = 6


class CellsFailedError(MbbenchError):
    exit_code = 7


class IncomparableError(MbbenchError):
    exit_code = 8


class Interrupted(KeyboardInterrupt):
    """A signal asked the program to end, with the exit code that the shell has for it: 128 + its number."""

    def __init__(self, exit_code: int = EXIT_INTERRUPTED) -> None:
        super().__init__()
        self.exit_code = exit_code


def one_line(text: str) -> str:
    """Return `text` with control characters as their escapes, and its middle left out if it is very long."""
    text = visible(text)
    return text if len(text) <= _MAX_LENGTH else f"{text[: _MAX_LENGTH // 2]} ... {text[-_MAX_LENGTH // 2 :]}"


def list_first(entries: Sequence[str], most: int = 6) -> str:
    """Return the first `most` entries and the number of the others: `a, b and 3 more`."""
    rest = len(entries) - most
    return ", ".join(entries[:most]) + (f" and {rest} more" if rest > 0 else "")


def choose_one(name: str, names: Iterable[str]) -> str:
    """Return the remedy for a `name` that is none of `names`: the nearest, if one is near, then the list."""
    names = tuple(names)
    return f"{did_you_mean(name, names)}choose one of {', '.join(names)}"


def did_you_mean(name: str, names: Iterable[str], others: Mapping[str, str] = MappingProxyType({})) -> str:
    """Return the question `did you mean NAME? ` if one of `names` is near, or "".

    `others` are names that users give to one of `names`: `onnx` -> `onnxruntime`.
    """
    known = {choice.lower(): choice for choice in names} | dict(others)
    near = difflib.get_close_matches(name.lower()[:_MAX_LENGTH], known, n=1, cutoff=_NEAR)
    return f"did you mean {known[near[0]]}? " if near else ""


def describe_invalid(error: Exception) -> str:
    """Return an error of msgspec in plain words: `settings.threads must be a whole number, not text`."""
    message, _, place = str(error).partition(" - at `$")
    path = place.strip("`.")
    name = "a value" if path == "[...]" else path.replace("[...]", "") or "the content"
    if (match := re.fullmatch(r"Expected `(.+)`, got `(.+)`", message)) is not None:
        expected, actual = (
            " or ".join(_KINDS.get(kind, kind) for kind in kinds.split(" | ")) for kinds in match.groups()
        )
        return f"{name} must be {expected.removesuffix(' or nothing')}, not {actual}"
    if (match := re.fullmatch(r"Expected `array` of length (\d+)(?:, got (\d+))?", message)) is not None:
        return f"{name} must have {match[1]} values" + (f", not {match[2]}" if match[2] else "")
    if (match := re.fullmatch(r"Invalid enum value '?(.*?)'?", message)) is not None:
        return f"{name} has an unknown value: {match[1]}"
    if (match := re.fullmatch(r"Object missing required field `(.*)`", message)) is not None:
        return f"{name} has no {match[1]}"
    return message


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the error's type if it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def visible(text: str) -> str:
    """Return `text` with control characters as their escapes, such as `\\x1b`, `\\n` and `\\u202e`.

    Names come from files that anyone may have written: a terminal must not obey them, nor a reader be misled.
    """
    return text if text.isprintable() else UNSAFE_TEXT.sub(lambda match: ascii(match[0])[1:-1], text)
