"""The help of commands: panels by subject, and whole names at any width."""

import re
import subprocess
import sys
from collections.abc import Callable

import pytest
import typer

from mbbench.cli import app, help

Invoke = Callable[..., tuple[int, str, str]]
NAMES = [name for commands in app.COMMANDS.values() for name in commands]


def options_of(name: str) -> list[str]:
    """Return the long names of a command's options, without --help."""
    command = app._Commands().get_command(None, name)
    return [max(each.opts, key=len) for each in command.params if each.param_type_name == "option"]


@pytest.mark.parametrize("name", NAMES)
def test_every_option_is_in_one_panel(name: str) -> None:
    panels = [option for options in help.PANELS.values() for option in options]
    assert len(panels) == len(set(panels))
    assert set(options_of(name)) <= set(panels)


def test_every_option_in_a_panel_exists() -> None:
    assert {option for options in help.PANELS.values() for option in options} == {
        option for name in NAMES for option in options_of(name)
    }


@pytest.mark.parametrize("columns", ["60", "80", "140"])
@pytest.mark.parametrize("name", NAMES)
def test_names_are_whole_and_start_a_line(
    name: str, columns: str, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    code, out, err = invoke(name, "--help")
    assert (code, err) == (0, "")
    _, panels = re.split(r"^\w.*:$", out, maxsplit=1, flags=re.M)
    assert re.findall(r"^  (?:-\w, )?(--[\w-]+)", panels, re.M) == [
        *[option for options in help.PANELS.values() for option in options if option in options_of(name)],
        "--help",
    ]
    assert max(map(len, out.splitlines())) <= min(int(columns), help.MAX_WIDTH)
    assert "…" not in out and "(mobilenet_v1)" not in out


def test_the_everyday_options_come_first(invoke: Invoke) -> None:
    _, out, _ = invoke("run", "--help")
    titles = re.findall(r"^(\w.*):$", out, re.M)
    assert titles == [
        *(title for title in help.PANELS if title not in ("Exported file", "Limits", "Comparison")),
        "Help",
    ]
    panel = out.split("Everyday options:\n")[1].split("\n\n")[0]
    assert panel.splitlines()[0].startswith("  --model NAME         Network: mobilenet_v1, vgg16")
    assert "[default: mobilenet_v1]" in panel and "[default: 1.0]" in panel


def test_required_and_optional_parameters_are_told_apart(invoke: Invoke) -> None:
    _, out, _ = invoke("report", "--help")
    assert out.startswith("Usage: mbbench report [OPTIONS] RESULTS...\n")
    assert "Result files written by `mbbench run`. [required]" in out
    _, out, _ = invoke("show", "--help")
    assert out.startswith("Usage: mbbench show [OPTIONS] [RESULTS...]\n")
    assert "[default:\n              reports/results.jsonl]" in out


def test_a_name_that_is_too_long_has_a_line_of_its_own() -> None:
    formatter = typer.Context.formatter_class(width=40)
    help.write_definitions(formatter, "Panel", [("--a", "Short."), ("--accuracy-control", "Keep the layers in fp32.")])
    help.write_definitions(formatter, "Empty", [])
    assert formatter.getvalue() == ("Panel:\n  --a  Short.\n  --accuracy-control\n       Keep the layers in fp32.\n")


def test_help_loads_neither_rich_nor_pydantic() -> None:
    code = (
        "import sys; from mbbench.cli.app import main\n"
        f"for name in {NAMES!r}:\n"
        "    sys.argv[1:] = [name, '--help']\n"
        "    try: main()\n    except SystemExit: pass\n"
        "assert not {'rich', 'pydantic', 'torch', 'numpy'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
