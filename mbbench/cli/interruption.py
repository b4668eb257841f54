"""Ctrl-C, SIGTERM and SIGHUP: they unwind the command; then one line says what was kept and how to go on."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from mbbench.errors import Interrupted

_NUMBERS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
_DEFAULT_ADVICE = "nothing was changed; run the command again"


class Interruption:
    """The signal that interrupted the command, if any, and what the command says then."""

    def __init__(self) -> None:
        self._advice = _DEFAULT_ADVICE
        self._error: Interrupted | None = None

    def advise(self, text: str) -> None:
        """Set what the user reads after an interruption from here on: what was kept, and how to go on."""
        self._advice = text

    @property
    def line(self) -> str:
        """The line that the user reads after an interruption."""
        return f"interrupted; {self._advice}"

    @property
    def exit_code(self) -> int | None:
        """The exit code of an interrupted command; None if no signal came."""
        return None if self._error is None else self._error.exit_code

    def check(self) -> None:
        """Raise `Interrupted` again if a library has swallowed it."""
        if self._error is not None:
            raise self._error

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Turn signals into `Interrupted` inside the block. Signals that the caller ignores (nohup) stay ignored.

        The interruption and the advice are forgotten after the block.
        """
        caught = [number for number in _NUMBERS if signal.getsignal(number) not in (signal.SIG_IGN, None)]
        before = {number: signal.signal(number, self._raise) for number in caught}
        hooks = sys.excepthook, sys.unraisablehook
        # A library that swallows the interruption, such as ONNX Runtime while it imports NumPy, prints its traceback.
        sys.excepthook = lambda kind, error, trace: None if self._error is error else hooks[0](kind, error, trace)
        sys.unraisablehook = lambda event: None if self._error is event.exc_value else hooks[1](event)
        try:
            yield
        finally:
            sys.excepthook, sys.unraisablehook = hooks
            for number, handler in before.items():
                signal.signal(number, handler)
            self._advice, self._error = _DEFAULT_ADVICE, None

    def _raise(self, number: int, _: FrameType | None) -> None:
        """Raise `Interrupted` once.

        A closing terminal sends SIGHUP twice, and a CI runner SIGINT, then SIGTERM: what was measured is being stored
        by then. A second Ctrl-C ends the program at once.
        """
        if self._error is None:
            self._error = Interrupted(128 + number)
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            raise self._error


interruption = Interruption()
