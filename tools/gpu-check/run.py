"""Run the GPU checks, surest first, and write what they show to a folder that can be committed.

    python tools/gpu-check/run.py --out reports/reference/gpu

With parts that pack.py wrote, it first installs them and mbbench, without a network and outside the checkout. Steps
that an earlier call has run are not repeated: on a machine that receives one part at a time, call it once with each.
Without a GPU the steps run on the CPU, and those of TensorRT say why they cannot.

Only the standard library is used: the machine has nothing else yet.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from parts import collect

_HERE = Path(__file__).parent
_ROOT = _HERE.parent.parent
_PRECISIONS = ("fp32", "fp16", "bf16", "int8")
_BACKENDS = ("torch", "onnxruntime", "tensorrt")
_TENSORRT_LIBRARY = "tensorrt_rtx_cu13_libs"
_THREADS = 4  # of the host: torch.compile uses as many to compile
_GRACE_S = 5.0  # between the request to end and the kill
_LEAST_S = 10.0  # a step is not started with less time left


@dataclass(frozen=True)
class Step:
    """A command of the checks, the seconds after which it is ended, and the backend that it needs."""

    name: str
    command: tuple[str, ...]
    limit_s: float
    backend: str | None = None


@dataclass(frozen=True)
class Outcome:
    """How a step ended. `status`: ok, failed, timed out, not run, or unavailable (its backend cannot start here)."""

    name: str
    status: str
    seconds: float
    message: str


@dataclass(frozen=True)
class Backend:
    """A backend's precisions by device, and why it cannot start."""

    precisions: Mapping[str, Sequence[str]]
    error: str | None


def mbbench(*arguments: str) -> tuple[str, ...]:
    """Return the command line of mbbench."""
    return (sys.executable, "-m", "mbbench", *arguments)


def steps(backends: Mapping[str, Backend], weights: Path, out: Path) -> list[Step]:
    """Return all steps, surest first.

    `weights` is the folder of the checkpoints; networks without one have random weights.
    """

    def options(backend: str, alpha: str, resolution: str, names: Sequence[str]) -> tuple[str, ...]:
        available = backends[backend].precisions if backend in backends else {}
        device = next((name for name in available if name.startswith("cuda")), next(iter(available), "cpu"))
        precisions = [name for name in names if name in available.get(device, names)]
        checkpoint = weights / f"{alpha}-{resolution}.safetensors"
        threads = min(_THREADS, len(os.sched_getaffinity(0)))
        return (
            "--backend", backend, "--device", device, "--alpha", alpha, "--res", resolution,
            "--precision", ",".join(precisions), "--weights", str(checkpoint) if checkpoint.exists() else "random",
            "--threads", str(threads), "--profile", str(_HERE / "profile.toml"),
            "--results", str(out / "results.jsonl"),
        )  # fmt: skip

    def run(
        backend: str, alpha: str, resolution: str, names: Sequence[str], *, with_baselines: bool = False
    ) -> tuple[str, ...]:
        selected = options(backend, alpha, resolution, names)
        baselines = ("--baselines",) if with_baselines and selected[3].startswith("cuda") else ()  # too slow on a CPU
        return mbbench("run", *selected, *baselines)

    def step(name: str, backend: str, command: tuple[str, ...], limit_s: float) -> Step:
        return Step(f"{backend}: {name}", command, limit_s, backend)

    def script(name: str, backend: str, *more: str) -> tuple[str, ...]:
        device = options(backend, "1.0", "224", ())[3]
        return (sys.executable, f"benchmarks/{name}.py", *more, "--backend", backend, "--device", device)

    def tests(backend: str) -> tuple[str, ...]:
        return (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-m", "gpu", f"backends/{backend}")

    floats, small, large = _PRECISIONS[:3], ("0.5", "128"), ("1.0", "224")
    gate = (str(out / "gate.jsonl"), "--same", "3", "--slower", "1")
    return [
        Step("devices", mbbench("backends"), 60),
        Step("machine", mbbench("doctor"), 30),
        step("tests", "torch", tests("torch"), 150),
        step("1.0/224 and baselines", "torch-eager", run("torch-eager", *large, floats[:1], with_baselines=True), 90),
        step("1.0/224", "torch", run("torch", *large, floats[:2]), 110),
        step("fidelity", "torch-eager", script("torch_vs_loop", "torch-eager"), 40),
        step("fidelity", "torch", script("torch_vs_loop", "torch"), 80),
        step("tests", "tensorrt", tests("tensorrt"), 80),
        step("0.5/128 and baselines", "tensorrt", run("tensorrt", *small, _PRECISIONS, with_baselines=True), 120),
        step("1.0/224", "tensorrt", run("tensorrt", *large, floats), 60),
        step("gate", "torch-eager", script("gate", "torch-eager", *gate), 120),
        step("gate", "tensorrt", script("gate", "tensorrt", *gate), 100),
        step("0.5/128", "torch", run("torch", *small, floats), 120),
        step("1.0/224, int8 and baselines", "tensorrt", run("tensorrt", *large, ("int8",), with_baselines=True), 120),
    ]


def run_step(step: Step, log: Path, environment: Mapping[str, str], left_s: float) -> Outcome:
    """Run a step, append its output to `log`, and return how it ended.

    At its limit it is interrupted, so that mbbench stores what it has measured, and then killed with its children.
    """
    limit_s = min(step.limit_s, left_s)
    if limit_s < _LEAST_S:
        return Outcome(step.name, "not run", 0.0, "no time was left")
    start = time.monotonic()
    with log.open("a") as output:
        output.write(f"\n===== {step.name}: {' '.join(step.command)}\n")
        output.flush()
        written = output.tell()
        process = subprocess.Popen(
            step.command, cwd=_ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True, preexec_fn=_heed_interrupts,
        )  # fmt: skip
        timed_out = False
        try:
            process.wait(limit_s)
        except subprocess.TimeoutExpired:
            timed_out = True
            process.send_signal(signal.SIGINT)
            try:
                process.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    seconds = time.monotonic() - start
    lines = [line.strip() for line in log.read_bytes()[written:].decode(errors="replace").splitlines()]
    last = next((line for line in reversed(lines) if line), "")
    if timed_out:
        return Outcome(step.name, "timed out", seconds, f"ended after {limit_s:.0f} s: {last}")
    return Outcome(step.name, "failed" if process.returncode else "ok", seconds, last if process.returncode else "")


def _heed_interrupts() -> None:
    """Let a step be interrupted even if this program runs in the background, where a shell ignores interrupts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def install(parts: Path, work: Path) -> dict[str, str]:
    """Install what has arrived so far, and the checkout, in `work`; return the environment of the steps."""
    store, site = work / "store", work / "site"
    collect(parts, store)
    environment = {**os.environ, "PYTHONPATH": str(site), "PYTHONNOUSERSITE": "1", "COLUMNS": "140"}
    pip = [
        sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile",
        "--no-build-isolation", "--upgrade", "--root-user-action", "ignore", "--target", str(site),
    ]  # fmt: skip
    has_tensorrt = any(store.glob(f"{_TENSORRT_LIBRARY}*.whl"))
    wheels = [path for path in sorted(store.glob("*.whl")) if has_tensorrt or not path.name.startswith("tensorrt")]
    sources = [
        str(_ROOT),
        *(str(_ROOT / "backends" / name) for name in _BACKENDS if has_tensorrt or name != "tensorrt"),
    ]
    shutil.rmtree(site, ignore_errors=True)
    subprocess.run([*pip, *map(str, wheels)], env=environment, check=True)
    subprocess.run([*pip, *sources], env=environment, check=True)  # built by hatchling, which is among the wheels
    return environment


def find_backends(environment: Mapping[str, str]) -> dict[str, Backend]:
    """Return the installed backends by name."""
    command = mbbench("backends", "--format", "json")
    listed = subprocess.run(command, cwd=_ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    return {found["name"]: Backend(found["precisions"], found["error"]) for found in json.loads(listed)}


def write_summary(outcomes: Sequence[Outcome], out: Path) -> None:
    """Write how every step ended, as a table and as data."""
    (out / "steps.json").write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=1) + "\n")
    rows = [
        f"| {outcome.name} | {outcome.status} | {outcome.seconds:.0f} | {outcome.message.replace('|', '/')} |"
        for outcome in outcomes
    ]
    header = ["# GPU checks", "", "| Step | Result | Seconds | Message |", "| --- | --- | ---: | --- |"]
    (out / "summary.md").write_text("\n".join([*header, *rows]) + "\n")


def run_all(
    todo: Sequence[Step],
    outcomes: list[Outcome],
    backends: Mapping[str, Backend],
    out: Path,
    environment: Mapping[str, str],
    budget_s: float,
) -> None:
    """Run the steps that have no outcome in `outcomes` yet, add theirs, and write the summary after each.

    A step whose backend is missing, and all after it, are left for a later call, which may have it.
    """
    outcomes[:] = [outcome for outcome in outcomes if outcome.status in ("ok", "failed", "timed out")]
    known = {outcome.name for outcome in outcomes}
    left_s = budget_s - sum(outcome.seconds for outcome in outcomes)
    for step in todo:
        if step.backend is not None and step.backend not in backends:
            return
        if step.name in known:
            continue
        error = None if step.backend is None else backends[step.backend].error
        if error is None:
            outcome = run_step(step, out / "log.txt", environment, left_s)
        else:
            outcome = Outcome(step.name, "unavailable", 0.0, error)
        left_s -= outcome.seconds
        outcomes.append(outcome)
        write_summary(outcomes, out)
        print(f"{outcome.status:<12}{outcome.seconds:6.0f} s  {outcome.name}  {outcome.message}", flush=True)


def write_report(out: Path, environment: Mapping[str, str]) -> None:
    """Write the report of the results so far, if there are any."""
    if (out / "results.jsonl").exists():
        command = mbbench("report", str(out / "results.jsonl"), "--output", str(out / "report.md"))
        subprocess.run(command, cwd=_ROOT, env=environment, stderr=subprocess.DEVNULL, timeout=60)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="Folder of the results.")
    parser.add_argument("--parts", type=Path, help="Folder of pack.py's parts; default: run in this environment.")
    parser.add_argument("--work", type=Path, default=Path("/tmp/mbbench-gpu-check"), help="Folder kept between calls.")
    parser.add_argument("--budget", type=float, default=540.0, help="Seconds of all steps of all calls together.")
    arguments = parser.parse_args()
    work: Path = arguments.work
    kept = work / "out"
    kept.mkdir(parents=True, exist_ok=True)
    environment = dict(os.environ) if arguments.parts is None else install(arguments.parts, work)
    backends = find_backends(environment)
    known = kept / "steps.json"
    outcomes = [Outcome(**outcome) for outcome in json.loads(known.read_text())] if known.exists() else []
    try:
        run_all(steps(backends, work / "store", kept), outcomes, backends, kept, environment, arguments.budget)
        write_report(kept, environment)
    finally:
        shutil.copytree(kept, arguments.out, dirs_exist_ok=True)
    return int(any(outcome.status in ("failed", "timed out") for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
