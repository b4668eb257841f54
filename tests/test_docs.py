"""What the documents say about the command line is what it says itself."""

import sys
from collections.abc import Callable

import pytest

from mbbench import cli

_HEADER = """# Commands

Every command's own help, written by `pytest --golden` and held true by `tests/test_docs.py`.
"""


def test_every_help_is_in_the_docs(
    golden: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    names = [command.callback.__name__ for command in cli.app.registered_commands if command.callback is not None]
    blocks = [_HEADER]
    for command in (["mbbench"], *(["mbbench", name] for name in names)):
        monkeypatch.setattr(sys, "argv", [*command, "--help"])
        with pytest.raises(SystemExit):
            cli.main()
        text = "\n".join(line.rstrip() for line in capsys.readouterr().out.strip("\n").splitlines())
        blocks.append(f"## {' '.join(command)}\n\n```text\n{text}\n```\n")
    golden("\n".join(blocks), "docs/commands.md")
