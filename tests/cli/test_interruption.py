"""Ctrl-C, SIGTERM and SIGHUP."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress

import pytest

from mbbench.cli.interruption import Interruption, interruption
from mbbench.errors import BackendError, Interrupted

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


@pytest.mark.parametrize(("number", "code"), CODES.items())
def test_a_signal_becomes_an_interruption_with_the_shells_exit_code(number: int, code: int) -> None:
    before = signal.getsignal(number)
    state = Interruption()
    with state.on_signals():
        with pytest.raises(Interrupted) as caught:
            signal.raise_signal(number)
        assert (caught.value.exit_code, state.exit_code) == (code, code)
    assert state.exit_code is None
    assert signal.getsignal(number) == before


def test_later_signals_do_not_disturb_what_is_being_stored() -> None:
    stored = False
    with pytest.raises(Interrupted), Interruption().on_signals():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGHUP)
            stored = True
    assert stored


def test_a_second_ctrl_c_ends_the_program_at_once() -> None:
    state = Interruption()
    with pytest.raises(Interrupted), state.on_signals():
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL


def test_a_signal_that_the_caller_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interruption().on_signals():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_an_interruption_that_a_library_swallowed_is_raised_again() -> None:
    state = Interruption()
    with pytest.raises(Interrupted), state.on_signals():
        state.check()
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        state.check()


def test_an_interruption_in_a_finalizer_prints_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    class Resource:
        def __init__(self, number: int) -> None:
            self._number = number

        def __del__(self) -> None:
            signal.raise_signal(self._number)

    state = Interruption()
    with pytest.raises(Interrupted), state.on_signals():
        resource = Resource(signal.SIGTERM)
        del resource
        state.check()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("swallowed", [False, True], ids=["raised", "turned into another error"])
def test_an_interrupted_command_says_what_was_kept(
    swallowed: bool, invoke: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def command(**_: object) -> None:
        interruption.advise("3 files are kept; run it again")
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt as error:
            if swallowed:
                raise BackendError("cannot compile", "report it") from error
            raise

    monkeypatch.setattr("typer.main.get_command", lambda _: command)
    assert invoke() == (143, "", "interrupted; 3 files are kept; run it again\n")


def test_a_command_that_finished_in_spite_of_a_signal_succeeds(
    invoke: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def command(**_: object) -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            print("done")

    monkeypatch.setattr("typer.main.get_command", lambda _: command)
    assert invoke() == (0, "done\n", "")
