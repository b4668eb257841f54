"""Mistakes in a command line end in one line, in the words of all other errors."""

from collections.abc import Callable
from typing import Any

import pytest
import typer

from mbbench.cli import command, mistakes

Invoke = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("run --threads x", "--threads is not a whole number: x; give digits alone, such as 32"),
        ("cost --res 1.5", "--res is not a whole number: 1.5; give digits alone, such as 32"),
        ("cost --res=", "--res is not a whole number: ''; give digits alone, such as 32"),
        ("cost --alpha x", "--alpha is not a number: x; give one such as 0.5"),
        ("run --format xml", "unknown value of --format: xml; choose one of table, json, csv, markdown"),
        (
            "compress --precision int9",
            "unknown value of --precision: int9; did you mean int8? choose one of fp32, bf16, fp16, int8",
        ),
        ("run --alpha", "--alpha has no value; write --alpha NUMBERS"),
        ("cost --classes", "--classes has no value; write --classes N"),
        ("train -o", "-o has no value; write -o FILE"),
        ("run --help=1", "--help takes no value; write --help alone"),
        ("run --plan=1", "--plan takes no value; write --plan alone"),
        ("run --no-baselines=1", "--no-baselines takes no value; write --no-baselines alone"),
        (
            "run --alfa 1",
            "unknown option: --alfa; did you mean --alpha? `mbbench run --help` lists all options",
        ),
        ("show -o x", "unknown option: -o; `mbbench show --help` lists all options"),
        ("--bar", "unknown option: --bar; `mbbench --help` lists all options"),
        ("swep", "unknown command: swep; did you mean sweep? `mbbench --help` lists all commands"),
        ("xyzzy", "unknown command: xyzzy; `mbbench --help` lists all commands"),
        ("cost a b", "unexpected argument: b; `mbbench cost --help` lists all options"),
        ("keep", "missing argument: DIR; `mbbench keep --help` explains it"),
        ("export --to openvino", "missing option: --output; add --output FILE"),
        ("report a.jsonl", "missing option: --output; add --output FILE"),
    ],
)
def test_a_mistake_prints_one_line(line: str, message: str, invoke: Invoke) -> None:
    assert invoke(*line.split()) == (2, "", f"error: {message}\n")


@pytest.mark.parametrize(
    ("limits", "text", "remedy"),
    [
        ({"min": 1}, "0", "give at least 1"),
        ({"max": 8}, "9", "give at most 8"),
        ({"min": 1, "max": 8}, "9", "give 1 to 8"),
    ],
)
def test_a_number_beyond_its_bounds_names_them(limits: dict[str, Any], text: str, remedy: str) -> None:
    app = typer.Typer(add_completion=False, rich_markup_mode=None)

    def count(number: int = typer.Option(1, "--number", **limits)) -> None:
        """Count."""

    app.command(cls=command.Command)(count)
    with pytest.raises(mistakes.PARSER_ERROR) as raised:
        app(["--number", text], standalone_mode=False)
    assert str(mistakes.describe(raised.value)) == f"--number is out of range: {text}; {remedy}"


def test_without_arguments_the_help_goes_to_stderr(invoke: Invoke) -> None:
    code, out, err = invoke()
    assert (code, out) == (2, "")
    assert err.startswith("Usage: mbbench [OPTIONS] COMMAND [ARGS]...\n")
