"""How wide the text on standard output is."""

import os
import sys
from collections.abc import Callable

import pytest

from mbbench.cli import output

Invoke = Callable[..., tuple[int, str, str]]


def test_columns_decides_the_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert output.text_width() == 100
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert output.text_width() == 100


@pytest.mark.parametrize("columns", [None, "", "0", "wide"])
def test_without_columns_the_terminal_decides_and_a_pipe_has_no_limit(
    columns: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    assert output.text_width() is None
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(sys.stdout, "fileno", lambda: 1)
    monkeypatch.setattr(os, "get_terminal_size", lambda descriptor: os.terminal_size((61 * descriptor, 24)))
    assert output.text_width() == 61
    monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((0, 0)))
    assert output.text_width() is None


def test_in_a_pipe_a_row_is_one_line(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS")
    _, out, _ = invoke("cost", "--alpha", "0.5", "--res", "160")
    lines = out.splitlines()
    assert "Parameters               1.33 M (1.32 M without biases and batch norm)" in lines
    assert max(map(len, lines)) > 80  # the table's note
    monkeypatch.setenv("COLUMNS", "40")
    _, out, _ = invoke("cost", "--alpha", "0.5", "--res", "160")
    assert max(map(len, out.splitlines())) <= 40
