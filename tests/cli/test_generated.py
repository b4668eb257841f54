"""Generated values of all options of all commands: every command line ends with one line and exit 0 or 2.

The commands and their options come from the Typer application. Those that can are run with --plan; of the others, the
function that does the work is replaced, so that everything before it runs.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from mbbench import store
from mbbench.cli import app
from mbbench.errors import visible
from mbbench.report.formats import html
from mbbench.result import Result

Invoke = Callable[..., tuple[int, str, str]]

LIMIT_S = 20  # of one command: only a hang takes that long
REQUIRED = {
    "to": ("--to", "onnxruntime"),
    "file": ("-o", "out.onnx"),
    "files": ("-o", "out.md"),
    "folder": ("kept",),
    "before": ("r.jsonl",),
    "after": ("r.jsonl",),
    "results": ("r.jsonl",),
    "page": ("page.html",),
    "scheduler": ("tcp://127.0.0.1:1",),
    "shell": ("bash",),
}
WORK = (
    "mbbench.cli.fit._search_all",
    "mbbench.artifacts.bundle.write",
    "mbbench.check.keep",
    "mbbench.check.check",
    "mbbench.check.calibrate",
    "mbbench.compare.baseline.build_from_commit",
    "mbbench.cli.train._load_split",
    "mbbench.cluster.worker.serve",
)
# Exit codes besides 0 and 2: a limit that no cell meets, a page with another's records, a backend that is not here.
OTHER_CODES = {"choose": {5}, "verify": {5}}
ABOUT_BACKENDS = {"backend", "device", "precision", "to", "resources"}

NUMBERS = (
    "0", "-1", "1", "2", "nan", "inf", "-inf", "1e308", "-0.0", "0.5", "1e-320", "99999999999", "99999999999999999999",
    "2147483648", "9" * 5000, "0x10", "1_000", "٣", "1,5", "50", "128", "1e99",
)  # fmt: skip
LISTS = (
    "", ",", ",,", "0.25,0.5", "128,x", "0.0001-8+0.0000001", "8-1+1", "1-0.5+0.1", "32-2048+1", "0.1-1+0", "1-2+-1",
    "1.2.3-4+1", "0-99999999999999999999999+0.000000000000000000000001", "1" + ",1" * 20_000, "nan-1+1",
)  # fmt: skip
TEXTS = (
    " ", "\t", "\n", "a\nb", "\x1b[31mred", "\x00", "\udc80", "x" * 300, "x" * 100_000, "[b]", "%s", "{}", "--", "-",
    "all", "random", "imagenet", "digits", "fp32", "int8", "onnx", "opnvino", "gpu", "cpu", "mobilenet_v1", "vgg16",
    "keras:", "timm:x.pt", "fashion-mnist:", "fashion-mnist:folder", "torchvision:", "~", "~no-such-user/x", "8.9",
)  # fmt: skip
PATHS = (
    "no-such-file", "no/such/file.jsonl", "folder", "file", "file/inside", ".", "..", "/dev/null", "/dev/null/x",
    "x.gz", "r.jsonl", "page.html", "empty.toml", "bad.toml", "folder.toml", "file.onnx", "folder.onnx",
    "file.safetensors", "a.csv",
)  # fmt: skip
QUANTITIES = ("0ms", "10ms", "5", "5h", "-5ms", "9" * 400 + "s", "0MB", "5MB", "9" * 400 + "GB", "p50:3%", "top1:9pt")


def commands() -> dict[str, Any]:
    """Return every command of the application with its parameters."""
    group: Any = typer.main.get_command(app.app)
    return {name: group.get_command(None, name) for name in group.list_commands(None)}


COMMANDS = commands()


def parameters(command: Any) -> list[Any]:
    return [parameter for parameter in command.params if parameter.name not in ("help", "plan")]


def values() -> st.SearchStrategy[str]:
    """Return a strategy for anything that a shell can pass; free text has no slash, so that it names no other place."""
    free = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), max_size=30)
    number = st.one_of(st.integers().map(str), st.floats().map(str))
    listed = (*NUMBERS, *LISTS, *(text for text in TEXTS if text != "\x00"), *PATHS, *QUANTITIES)
    return st.one_of(st.sampled_from(listed), number, free)


def command_lines(name: str) -> st.SearchStrategy[tuple[list[str], set[str]]]:
    """Return a strategy for the arguments after the command's name, and for the names of the parameters among them."""
    command = COMMANDS[name]
    known = {parameter.name: parameter for parameter in parameters(command)}

    def assemble(chosen: dict[str, str]) -> tuple[list[str], set[str]]:
        line = ["--plan"] if any("--plan" in each.opts for each in command.params) else []
        last = []
        for key, parameter in known.items():
            if key not in chosen:
                line += REQUIRED[key] if parameter.required else ()
            elif parameter.param_type_name == "argument":
                last.append(chosen[key])
            elif parameter.is_flag:
                line.append(parameter.opts[0])
            else:
                line.append(f"{max(parameter.opts, key=len)}={chosen[key]}")
        arguments = [key for key, each in known.items() if each.param_type_name == "argument" and each.required]
        if last and arguments:  # all positions, the generated ones in their place
            line = [word for word in line if (word,) not in [REQUIRED[key] for key in arguments]]
            last = [chosen.get(key, REQUIRED[key][0]) for key in arguments]
        return ([*line, "--", *last] if last else line), set(chosen)

    keys = st.sampled_from(sorted(known)) if known else st.nothing()
    return st.dictionaries(keys, values(), min_size=1, max_size=3).map(assemble)


@contextmanager
def hang_guard(line: object) -> Iterator[None]:
    """Raise `TimeoutError` in the block if it takes longer than `LIMIT_S`."""

    def give_up(*_: object) -> None:
        raise TimeoutError(f"no end after {LIMIT_S} s: {line}")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def files(tmp_path: Path, make_result: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    """Prepare the files that values name, and replace the functions that work."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "folder.onnx").mkdir()
    for name in ("file", "empty.toml", "file.onnx"):
        (tmp_path / name).touch()
    (tmp_path / "bad.toml").write_text("[settings]\nbatch = -1\n")
    (tmp_path / "file.safetensors").write_text("no tensors")
    (tmp_path / "a.csv").write_text("a\n")
    store.append(tmp_path / "r.jsonl", make_result())
    (tmp_path / "page.html").write_text(html.render([make_result()]))

    def work(*_: object, **__: object) -> None:
        raise typer.Exit

    for function in WORK:
        monkeypatch.setattr(function, work)
    monkeypatch.setattr("mbbench.cli.system._WATCH_S", 0)


def require_one_line(invoke: Invoke, name: str, line: list[str], chosen: set[str]) -> None:
    """Run the command and check how it ends."""
    with hang_guard([name, *line]):
        code, _, err = invoke(name, *line)
    assert code in {0, 2} | OTHER_CODES.get(name, set()) | ({6} if ABOUT_BACKENDS & chosen else set()), err
    errors = [text for text in err.split("\n") if text and not text.endswith(" ...")]
    if code != 0:
        problem, _, remedy = errors[-1].partition("; ")
        assert errors[-1].startswith("error: ") and problem and remedy, err
        assert len(errors) == 1 or name == "verify", err
    assert all(visible(text) == text for text in errors), err


def require_generated(examples: settings, invoke: Invoke, name: str) -> None:
    """Run the command with generated options, as many as `examples` says, and check how it ends."""

    @examples
    @given(command_lines(name))
    def check(generated: tuple[list[str], set[str]]) -> None:
        require_one_line(invoke, name, *generated)

    check()


KEPT = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("name", COMMANDS)
def test_generated_values_end_in_one_line(invoke: Invoke, name: str) -> None:
    few = settings(max_examples=60, derandomize=True, deadline=None, database=None, suppress_health_check=KEPT,
                   phases=[Phase.generate])  # fmt: skip
    require_generated(few, invoke, name)


@pytest.mark.slow
@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("name", COMMANDS)
def test_many_generated_values_end_in_one_line(invoke: Invoke, name: str) -> None:
    require_generated(
        settings(max_examples=200, deadline=None, database=None, suppress_health_check=KEPT), invoke, name
    )


@pytest.mark.slow
@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("name", COMMANDS)
def test_every_listed_value_of_every_option_ends_in_one_line(invoke: Invoke, name: str) -> None:
    problems = []
    for parameter in parameters(COMMANDS[name]):
        for value in (*NUMBERS, *LISTS, *TEXTS, *PATHS, *QUANTITIES):
            if value == "\x00" or (getattr(parameter, "is_flag", False) and value != NUMBERS[0]):
                continue
            required = [word for key, words in REQUIRED.items() for word in words if _is_missing(name, key, parameter)]
            if parameter.param_type_name == "argument":
                line = [*required, "--", value]
            else:
                line = [
                    parameter.opts[0] if parameter.is_flag else f"{max(parameter.opts, key=len)}={value}",
                    *required,
                ]
            line += ["--plan"] * (any("--plan" in each.opts for each in COMMANDS[name].params))
            try:
                require_one_line(invoke, name, line, {parameter.name})
            except Exception as error:
                problems.append((line, f"{type(error).__name__}: {error}"))
    assert problems == []


def _is_missing(name: str, key: str, parameter: Any) -> bool:
    """Return whether the command requires the parameter `key`, and it is not `parameter`."""
    return any(each.name == key and each.required for each in COMMANDS[name].params) and parameter.name != key
