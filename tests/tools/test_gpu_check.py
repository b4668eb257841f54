"""Steps end at their limits, keep what they printed, and are not repeated."""

import json
import os
import sys
from pathlib import Path

import pytest
from run import Backend, Outcome, Step, run_all, run_step, steps

GPU = {
    "torch": Backend({"cpu": ["bf16", "fp32", "int8"], "cuda:0": ["bf16", "fp16", "fp32"]}, None),
    "torch-eager": Backend({"cpu": ["fp32"], "cuda:0": ["bf16", "fp16", "fp32"]}, None),
    "tensorrt": Backend({"cuda:0": ["bf16", "fp16", "fp32", "int8"]}, None),
}
CPU = {"torch": Backend({"cpu": ["bf16", "fp32", "int8"]}, None), "torch-eager": Backend({"cpu": ["fp32"]}, None)}


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


def option(command: tuple[str, ...], name: str) -> str:
    return command[command.index(name) + 1]


def test_the_steps_use_the_gpu_and_its_precisions_where_there_is_one(tmp_path: Path) -> None:
    (tmp_path / "0.5-128.safetensors").touch()
    on_gpu, on_cpu = ({step.name: step.command for step in steps(found, tmp_path, tmp_path)} for found in (GPU, CPU))
    assert list(on_gpu) == list(on_cpu)
    small, eager = "torch: 0.5/128", "torch-eager: 1.0/224 and baselines"
    for found, device, precisions in ((on_gpu, "cuda:0", "fp32,fp16,bf16"), (on_cpu, "cpu", "fp32,bf16")):
        assert option(found[small], "--device") == device
        assert option(found[small], "--precision") == precisions
        assert option(found["torch-eager: gate"], "--device") == device
        assert ("--baselines" in found[eager]) == (device == "cuda:0")
    assert option(on_gpu["tensorrt: 0.5/128 and baselines"], "--precision") == "fp32,fp16,bf16,int8"
    assert option(on_gpu[small], "--weights") == str(tmp_path / "0.5-128.safetensors")
    assert option(on_gpu["torch: 1.0/224"], "--weights") == "random"


def test_every_backend_has_its_tests_its_networks_and_its_gate(tmp_path: Path) -> None:
    named = [step.name for step in steps(GPU, tmp_path, tmp_path)]
    assert len(named) == len(set(named))
    for name in ("torch: tests", "tensorrt: tests", "torch: fidelity", "torch-eager: gate", "tensorrt: gate"):
        assert name in named


@pytest.mark.parametrize(
    ("code", "status", "message"),
    [
        ("print('fine')", "ok", ""),
        ("import sys; print('a'); print('no driver', file=sys.stderr); print(); sys.exit(6)", "failed", "no driver"),
    ],
)
def test_a_step_that_fails_has_its_last_line_as_message(tmp_path: Path, code: str, status: str, message: str) -> None:
    outcome = run_step(Step("step", python(code), 60), tmp_path / "log.txt", os.environ, 60)
    assert (outcome.status, outcome.message) == (status, message)


def test_a_step_is_interrupted_at_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("run._LEAST_S", 0.1)
    code = "import time; print('started', flush=True)\ntry: time.sleep(60)\nexcept KeyboardInterrupt: print('stored')"
    outcome = run_step(Step("slow", python(code), 3), tmp_path / "log.txt", os.environ, 60)
    assert (outcome.status, outcome.message) == ("timed out", "ended after 3 s: stored")
    assert outcome.seconds < 30
    assert "===== slow: " in (tmp_path / "log.txt").read_text()


def test_a_step_that_ignores_the_interrupt_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("run._LEAST_S", 0.1)
    monkeypatch.setattr("run._GRACE_S", 0.5)
    code = (
        "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    )
    outcome = run_step(Step("deaf", python(code), 3), tmp_path / "log.txt", os.environ, 60)
    assert (outcome.status, outcome.message) == ("timed out", "ended after 3 s: deaf")
    assert outcome.seconds < 30


def test_a_step_without_time_left_is_not_run(tmp_path: Path) -> None:
    assert run_step(Step("late", python(""), 60), tmp_path / "log.txt", os.environ, 9.0).status == "not run"


def test_a_second_call_runs_only_what_the_first_did_not(tmp_path: Path) -> None:
    todo = [
        Step("first", python("print(1)"), 60),
        Step("second", python("print(2); raise SystemExit(7)"), 60, "tensorrt"),
        Step("third", python("print(3)"), 60, "refused"),
    ]
    outcomes: list[Outcome] = []
    refused = Backend({}, "no NVIDIA driver was found; install it")
    run_all(todo, outcomes, {"refused": refused}, tmp_path, os.environ, 600)
    assert [(outcome.name, outcome.status) for outcome in outcomes] == [("first", "ok")]
    run_all(todo, outcomes, {"refused": refused, "tensorrt": Backend({}, None)}, tmp_path, os.environ, 600)
    assert [(outcome.name, outcome.status) for outcome in outcomes] == [
        ("first", "ok"),
        ("second", "failed"),
        ("third", "unavailable"),
    ]
    assert (tmp_path / "log.txt").read_text().count("===== first") == 1
    assert [Outcome(**outcome) for outcome in json.loads((tmp_path / "steps.json").read_text())] == outcomes
    assert (
        "| third | unavailable | 0 | no NVIDIA driver was found; install it |" in (tmp_path / "summary.md").read_text()
    )


def test_seconds_of_earlier_calls_count(tmp_path: Path) -> None:
    outcomes = [Outcome("first", "ok", 590.0, "")]
    run_all([Step("second", python(""), 60)], outcomes, {}, tmp_path, os.environ, 595)
    assert outcomes[1].status == "not run"
