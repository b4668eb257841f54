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

from typing import ClassVar

EXIT_CLOSED_PIPE = 141
EXIT_INTERRUPTED = 130


class MbbenchError(Exception):
    """An error that is printed as one line: `cause; remedy`."""

    exit_code: ClassVar[int] = 1

    def __init__(self, cause: str, remedy: str) -> None:
        cause, remedy = printable(cause), printable(remedy)
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


def printable(text: str) -> str:
    """Return the text in one line: what a terminal would obey, such as line ends and escapes, becomes `\\x1b`."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the error's type if it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
