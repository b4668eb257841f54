"""What the commands refuse before they read, wait or write."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mbbench import store
from mbbench.result import Result

Invoke = Callable[..., tuple[int, str, str]]
Make = Callable[..., Result]


@pytest.mark.parametrize(
    "command",
    [
        "show {}", "report {} -o r.md", "choose {} --max-p99 5ms", "explain {}", "compare {} {}", "verify {}",
        "run --profile {}", "run --results {}", "sweep --results {}", "check --baseline {}",
        "fit --max-p99 5ms --backend onnxruntime --results {}",
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_what_is_not_a_regular_file_is_refused_in_one_line(invoke: Invoke, command: str, kind: str) -> None:
    if kind == "device" and "--results" in command and not command.startswith("fit"):
        pytest.skip("a device can be appended to")
    path = {"pipe": "pipe.toml", "folder": "folder.toml", "device": "/dev/zero"}[kind]
    os.mkfifo("pipe.toml")
    Path("folder.toml").mkdir()
    code, out, err = invoke(*command.format(path, path).split())
    assert (code, out) == (2, "")
    assert "Traceback" not in err and err.splitlines()[-1].startswith("error: ") and path in err
    assert sorted(path.name for path in Path().iterdir()) == ["folder.toml", "pipe.toml"]


def test_a_report_is_not_written_to_a_pipe(invoke: Invoke, make_result: Make) -> None:
    store.append(Path("r.jsonl"), make_result())
    os.mkfifo("r.md")
    code, out, err = invoke("report", "r.jsonl", "-o", "r.md")
    assert (code, out, err) == (2, "", "error: cannot write r.md (not a regular file); choose another file with -o\n")


def test_a_manifest_that_is_a_pipe_is_refused(invoke: Invoke) -> None:
    Path("base").mkdir()
    os.mkfifo("base/baseline.json")
    code, _, err = invoke("check", "--baseline", "base", "--backend", "onnxruntime")
    assert code == 2 and "there is no baseline in base (it is a FIFO, not a file)" in err


@pytest.mark.parametrize("command", ["run", "sweep"])
def test_a_refused_run_creates_nothing(invoke: Invoke, command: str) -> None:
    code, _, err = invoke(command, "--backend", "onnxruntime", "--threads", "4096", "--results", "new/dir/r.jsonl")
    assert code == 2 and "--threads is more than the number of available CPUs" in err
    assert list(Path().iterdir()) == []


def test_names_in_messages_cannot_control_the_terminal(invoke: Invoke, make_result: Make) -> None:
    assert invoke("show", "a\x1b[31m.jsonl")[2] == (
        "error: cannot read a\\x1b[31m.jsonl (No such file or directory); name a file that `mbbench run` wrote\n"
    )
    store.append(Path("b\x1b.jsonl"), make_result(backend="\x1b]0;title\x07"))
    code, out, err = invoke("report", "b\x1b.jsonl", "-o", "b\x1b.md")
    assert (code, out) == (0, "") and err.startswith("b\\x1b.md written: 1 result")
    code, out, err = invoke("show", "b\x1b.jsonl")
    assert code == 0 and r"\x1b]0;title\x07" in out and "\x1b]" not in out


def test_lines_that_are_left_out_are_named_on_standard_error(invoke: Invoke, make_result: Make) -> None:
    path = Path("r.jsonl")
    store.append(path, make_result())
    path.write_bytes(path.read_bytes() + b"{}\n")
    note = "r.jsonl line 2 is left out: it is no record of `mbbench run`\n"
    for command in (["show"], ["choose", "--max-p99", "5ms"]):
        code, _, err = invoke(command[0], "r.jsonl", *command[1:])
        assert (code, err) == (0, note)
    code, _, err = invoke("report", "r.jsonl", "-o", "a.md", "-o", "a.csv")
    assert code == 0 and err.count(note) == 1


@pytest.mark.parametrize(
    "content", [b"{}\n", b'{"schema": 1}\n', b"\xff\xfe\n", b"no JSON\n{}\n", b"", b'{"schema": 1']
)
def test_a_file_without_a_result_is_one_line_of_error(invoke: Invoke, content: bytes) -> None:
    Path("r.jsonl").write_bytes(content)
    for command in (
        ["show"],
        ["choose", "--max-p99", "5ms"],
        ["explain"],
        ["compare", "r.jsonl"],
        ["report", "-o", "r.md"],
    ):
        code, out, err = invoke(command[0], "r.jsonl", *command[1:])
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert err.startswith("error: ") and "r.jsonl" in err


def test_explain_names_the_cell_in_csv(invoke: Invoke, make_result: Make) -> None:
    fp32 = make_result()
    store.append(Path("r.jsonl"), fp32)
    store.append(Path("r.jsonl"), replace(fp32, cell=replace(fp32.cell, precision="int8")))
    code, out, _ = invoke("explain", "r.jsonl", "--format", "csv")
    assert code == 0
    assert out.splitlines()[0] == "Cell,Quantity,Value"
    assert out.splitlines()[1] == "0.5 MobileNet-128 in int8 on openvino,Median relative to fp32,1.00"
