"""The errors that mbbench reports, each with a cause, a remedy and an exit code.

    MbbenchError            1  internal error (the base class; raised itself only for bugs)
    +-- UsageError          2  invalid option, file, folder, checkpoint or profile
    +-- RegressionError     3  `mbbench check`: a cell is slower, bigger or less accurate than its limits allow
    +-- InconclusiveError   4  `mbbench check --strict`: a cell could not be shown to be within its limits
    +-- RequirementError    5  a requirement is not met: parity with PyTorch, accuracy, executed precision, the limits
                               of `mbbench choose` and `fit`, or the agreement of a report with its records
    +-- BackendError        6  a backend, its runtime or its device is missing, or rejects the model
    +-- CellsFailedError    7  some cells failed; the others were measured and stored
    +-- IncomparableError   8  `mbbench compare`: results of different machines, runtimes or settings

An interrupted run (Ctrl-C) stores what it has measured and exits with 130. A command whose reader closes the pipe, such
as `head`, exits with 141.
"""

from __future__ import annotations

import re
from typing import ClassVar

EXIT_CLOSED_PIPE = 141
EXIT_INTERRUPTED = 130

# Control characters, which a terminal obeys; marks that reorder or hide text; line separators; what XML cannot hold.
UNSAFE_TEXT = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff\ufffe\uffff]"
)


class MbbenchError(Exception):
    """An error that is printed as one line: `cause; remedy`."""

    exit_code: ClassVar[int] = 1

    def __init__(self, cause: str, remedy: str) -> None:
        super().__init__(cause, remedy)
        self.cause = cause
        self.remedy = remedy

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


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the error's type if it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def visible(text: str) -> str:
    """Return `text` with control characters as their escapes, such as `\\x1b`, `\\n` and `\\u202e`.

    Names come from files that anyone may have written: a terminal must not obey them, nor a reader be misled.
    """
    return text if text.isprintable() else UNSAFE_TEXT.sub(lambda match: ascii(match[0])[1:-1], text)
