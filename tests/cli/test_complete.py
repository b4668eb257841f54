"""Completion after Tab, through the scripts that shells run."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mbbench import profile, registry
from mbbench.cli import app, complete
from mbbench.families import FAMILIES

Invoke = Callable[..., tuple[int, str, str]]
Complete = Callable[[str], list[str]]
COMMANDS = [name for commands in app.COMMANDS.values() for name in commands]


@pytest.fixture
def completed(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> Complete:
    """Return a function that returns what bash offers after a line, whose last word is completed."""

    def call(line: str) -> list[str]:
        monkeypatch.setenv("_MBBENCH_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", f"mbbench {line}")
        monkeypatch.setenv("COMP_CWORD", str(len(line.split(" "))))
        code, out, err = invoke()
        assert (code, err) == (0, "")
        return out.split()

    return call


def test_commands_and_options_are_completed(completed: Complete) -> None:
    assert completed("") == COMMANDS
    assert completed("co") == ["compare", "compress", "cost", "completion"]
    assert completed("run --ac") == ["--accuracy-control"]
    assert completed("show --") == ["--help"]


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("run --model mob", ["mobilenet_v1", "mobilenet_v2"]),
        ("sweep --model vgg16,x", ["vgg16,xception"]),
        ("run --model vgg16,x", []),
        ("run --against goog", ["googlenet"]),
        ("cost --variant f", ["full-conv"]),
        ("run --precision int8,", ["int8,fp32", "int8,bf16", "int8,fp16"]),
        ("compress --precision f", ["fp32", "fp16"]),
        ("run --format ", ["table", "json", "csv", "markdown"]),
        ("check --format j", ["json", "junit"]),
        ("run --interpolation b", ["bilinear", "bicubic"]),
        ("run --device ", ["cpu", "gpu", "npu", "cuda:0"]),
        ("run --scenario s", ["single-stream", "server"]),
        ("run --data d", ["digits"]),
        ("run --calibration r", ["random"]),
        ("run --weights i", ["imagenet"]),
        ("check --fail-on p", ["p50:3%", "p99:10%"]),
        ("completion ", ["bash", "zsh", "fish"]),
        ("run --results re", []),  # shells offer files
        ("show re", []),
    ],
)
def test_values_are_completed(line: str, values: list[str], completed: Complete) -> None:
    assert completed(line) == values


def test_networks_backends_and_profiles_are_those_installed(completed: Complete, tmp_path: Path) -> None:
    assert completed("run --model ") == [*FAMILIES, "torchvision:", "timm:"]
    assert completed("run --backend ") == [*registry.names(), "all"]
    assert completed("run --backend onnxruntime,") == [
        f"onnxruntime,{name}" for name in (*registry.names(), "all") if name != "onnxruntime"
    ]
    assert completed("compress --backend ") == completed("export --to ") == list(registry.names())
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "mine.toml").touch()
    assert completed("run --profile ") == list(profile.names())
    assert {"ci", "default", "mine"} <= set(profile.names())


def test_every_option_with_completed_values_exists() -> None:
    options = {
        max(option.opts, key=len) for name in COMMANDS for option in app._Commands().get_command(None, name).params
    }
    assert complete._VALUES.keys() <= options


@pytest.mark.parametrize(
    ("shell", "line", "expected"),
    [
        ("zsh", "mbbench ba", '"backends":"List the backends'),
        ("fish", "mbbench ba", "backends\tList the backends: versions, devices and precisions"),
        ("zsh", "mbbench run --precision int", "_arguments '*: :((\"int8\"))'"),
        ("fish", "mbbench run --precision int", "int8\n"),
        ("zsh", "mbbench show re", "_files"),
    ],
)
def test_zsh_and_fish_show_descriptions_and_files(
    shell: str, line: str, expected: str, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_MBBENCH_COMPLETE", f"complete_{shell}")
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", line)
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
    code, out, _ = invoke()
    assert (code, expected in out) == (0, True), out


@pytest.mark.parametrize(
    "line", ["", "run --", "run --backend ", "run --profile ", "check --fail-on ", "run --device "]
)
def test_completing_imports_no_runtime(line: str) -> None:
    code = (
        "import json, sys; from mbbench.cli.app import main; sys.argv[1:] = []\n"
        "try: main()\nexcept SystemExit: print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    )
    words = {"COMP_WORDS": f"mbbench {line}", "COMP_CWORD": str(len(line.split(" ")))}
    environment = {**os.environ, "_MBBENCH_COMPLETE": "complete_bash", **words}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout
    assert not {"torch", "numpy", "onnx", "openvino", "onnxruntime", "rich"} & set(json.loads(done.stderr))


def test_bash_completes_with_the_script(tmp_path: Path) -> None:
    """The script is evaluated by bash itself; where nothing fits, bash offers files (`-o default`)."""
    program = tmp_path / "mbbench"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m mbbench "$@"\n')
    program.chmod(0o755)
    lines = (
        'eval "$(mbbench completion bash)"; complete -p mbbench',
        "COMP_WORDS=(mbbench run --precision int); COMP_CWORD=3; _mbbench_completion mbbench; echo ${COMPREPLY[@]}",
    )
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", "\n".join(lines)], env=environment, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("complete -o default -F _mbbench_completion mbbench\nint8\n", "")


def test_the_scripts_name_the_shells_own_commands(invoke: Invoke) -> None:
    assert invoke("completion", "zsh")[1].startswith("#compdef mbbench\n")
    assert invoke("completion", "fish")[1].startswith("complete --command mbbench ")
    assert invoke("completion", "tcsh") == (
        2, "", "error: unknown value of SHELL: tcsh; choose one of bash, zsh, fish\n",
    )  # fmt: skip
    assert app._COMPLETE == complete.VARIABLE
