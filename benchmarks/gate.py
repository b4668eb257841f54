"""Error rates of `mbbench check`: A/A gates, which must pass, and slowdowns of 2 % and 5 %, which must fail.

    .venv/bin/python benchmarks/gate.py RECORDS [--bursts] [--same 200] [--slower 100] [--rivals 50] [--backend NAME]

Targets: at most 1 of 200 A/A gates fails, at least 95 of 100 slowdowns of 2 % fail, and all of 5 %.

The candidate is the baseline's network in a file with other bytes, on OpenVINO or another backend, with each call
slowed by the injected share. A gate has `--fail-on p50:1%` and five seconds of timing, and five more to confirm a
failure. With `--bursts`, another process loads a core in bursts of 0.1 to 1 s, with pauses of 0.1 to 1 s.

The rivals are pytest-benchmark's `--benchmark-compare-fail=median:1%`, `pyperf compare_to --min-speed 1` and a
Mann-Whitney test at 1 % (SciPy). All three judge the same samples: 2.5 s of the baseline, then 2.5 s of the candidate,
each in a new process. They need `pip install pytest-benchmark pyperf`, and run only with `--rivals`.

Trials are appended to RECORDS, a .jsonl file, and the table covers all of them, so an interrupted run can be continued.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import multiprocessing
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import onnx
from common import NARROW, images, row

_SLOWED = Path(__file__).parent / "slowed"  # makes the backend visible to this process and its children
sys.path.insert(0, str(_SLOWED))
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(_SLOWED), os.environ.get("PYTHONPATH"))))

from mbbench_slowed import SlowedBackend  # noqa: E402

from mbbench import check  # noqa: E402
from mbbench.artifacts.export import Exported  # noqa: E402
from mbbench.backend import Artifact  # noqa: E402
from mbbench.compare import baseline, changes  # noqa: E402
from mbbench.machine import pick_cpus  # noqa: E402
from mbbench.measure.latency import no_garbage_collection, time_calls, warm_up  # noqa: E402
from mbbench.spec import Cell, RunSpec, Settings  # noqa: E402

_LIMIT = "p50:1%"
_SECONDS = 5.0
_SLOWDOWNS = (0.0, 0.02, 0.05)
_MBBENCH = "mbbench check"


@dataclass(frozen=True, slots=True)
class Trial:
    """The verdict of one gate, with the seconds from its start to the verdict."""

    judge: str
    slowdown: float
    bursts: bool
    failed: bool
    change: float
    seconds: float


@contextlib.contextmanager
def slowdown(share: float) -> Iterator[None]:
    """Slow the candidate's calls by `share`."""
    os.environ["MBBENCH_SLOWDOWN"] = str(share)
    try:
        yield
    finally:
        del os.environ["MBBENCH_SLOWDOWN"]


def _burst() -> None:
    rng = random.Random(0)
    while True:
        end = time.monotonic() + rng.uniform(0.1, 1)
        while time.monotonic() < end:
            pass
        time.sleep(rng.uniform(0.1, 1))


@contextlib.contextmanager
def burst_load(enabled: bool) -> Iterator[None]:
    """Run a process that loads a core in bursts, if `enabled`."""
    if not enabled:
        yield
        return
    process = multiprocessing.get_context("spawn").Process(target=_burst, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def mark_baseline(folder: Path) -> None:
    """Change the bytes of the only baseline in `folder`, by which it is told from the candidate and not slowed."""
    (entry,) = baseline.read_manifest(folder)
    source = folder / entry.file_name
    marked = folder.parent / f"marked{source.suffix}"
    model = onnx.load(source)
    model.doc_string = "baseline"
    marked.write_bytes(model.SerializeToString())
    content = marked.read_bytes()
    info = replace(entry.artifact, sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))
    os.environ["MBBENCH_BASELINE"] = info.sha256
    baseline.write(folder, [(entry.cell, Exported(marked, info), entry.versions)])


def run_gate(spec: RunSpec, folder: Path) -> tuple[bool, float]:
    """Run `mbbench check`; return whether it failed, and the change of the median."""
    record = check.check(spec, folder, changes.parse_limits([_LIMIT]), _SECONDS, lambda _: None)
    (cell,) = record.cells
    (verdict,) = cell.verdicts
    assert verdict.change.change is not None
    return verdict.outcome == "fail", verdict.change.change


def time_separately(path: Path, share: float) -> list[float]:
    """Return the milliseconds of each call in `_SECONDS` / 2 of a new process, as most benchmarks measure."""
    command = [sys.executable, __file__, "--child", str(path)]
    environment = {**os.environ, "MBBENCH_SLOWDOWN": str(share), "OMP_NUM_THREADS": "1"}
    completed = subprocess.run(command, env=environment, capture_output=True, check=True)
    return msgspec.json.decode(completed.stdout, type=list[float])


def child(path: Path) -> None:
    os.sched_setaffinity(0, pick_cpus(1))
    format = path.suffix.removeprefix(".")
    artifact = Artifact(path=path, format=format, precision="fp32", dialect="fp32", spec=NARROW, batch=1, sha256="")
    inputs = images(NARROW)
    with SlowedBackend().open(artifact, "", threads=1, stage=lambda _: None) as session, no_garbage_collection():
        warm_up(lambda: session.run(inputs), max_s=1.0)
        half = _SECONDS / 2
        samples = time_calls(lambda: session.run(inputs), min_samples=100, min_s=half, max_s=half)
    sys.stdout.buffer.write(msgspec.json.encode([ns / 1e6 for ns in samples]))


def rival_verdicts(before: list[float], after: list[float]) -> Iterator[tuple[str, bool, float]]:
    """Yield each rival's name, whether it fails, and the change that it measures in the same samples."""
    from pytest_benchmark.stats import Stats
    from pytest_benchmark.utils import PercentageRegressionCheck
    from scipy.stats import mannwhitneyu

    medians = []
    for samples in (before, after):
        stats = Stats()
        for sample in samples:
            stats.update(sample)
        medians.append({"median": stats.median})
    change = medians[1]["median"] / medians[0]["median"] - 1
    failed = PercentageRegressionCheck("median", 1.0).fails(medians[1], medians[0])
    yield "pytest-benchmark compare", bool(failed), change
    yield "pyperf compare_to", *_pyperf(before, after)
    slower = mannwhitneyu(after, before, alternative="greater").pvalue < 0.01
    yield "Mann-Whitney", bool(slower), change


def _pyperf(before: list[float], after: list[float]) -> tuple[bool, float]:
    import pyperf

    with tempfile.TemporaryDirectory() as folder:
        files = []
        for name, samples in (("before", before), ("after", after)):
            run = pyperf.Run([sample / 1e3 for sample in samples], metadata={"name": "cell"}, collect_metadata=False)
            files.append(str(Path(folder, f"{name}.json")))
            pyperf.Benchmark([run]).dump(files[-1])
        command = [sys.executable, "-m", "pyperf", "compare_to", "--min-speed", "1", *files]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return "slower" in output, statistics.fmean(after) / statistics.fmean(before) - 1


def run_trials(spec: RunSpec, folder: Path, share: float, *, bursts: bool, judge_rivals: bool) -> Iterator[Trial]:
    """Yield one trial of `mbbench check`, or one of each rival."""
    start = time.monotonic()
    if not judge_rivals:
        with slowdown(share):
            failed, change = run_gate(spec, folder)
        yield Trial(_MBBENCH, share, bursts, failed, change, time.monotonic() - start)
        return
    (entry,) = baseline.read_manifest(folder)
    candidate = folder.parent / f"candidate.{entry.artifact.format}"
    before, after = time_separately(folder / entry.file_name, 0.0), time_separately(candidate, share)
    seconds = time.monotonic() - start
    for name, failed, change in rival_verdicts(before, after):
        yield Trial(name, share, bursts, failed, change, seconds)


def print_table(trials: list[Trial]) -> None:
    for bursts in sorted({trial.bursts for trial in trials}):
        print("\nwith a process that loads a core in bursts" if bursts else "\nwithout other load from this benchmark")
        row("judge", "A/A failed", "2 % caught", "5 % caught", "A/A spread", "seconds")
        for judge in dict.fromkeys(trial.judge for trial in trials):
            judged = [trial for trial in trials if trial.bursts == bursts and trial.judge == judge]
            counts = []
            for share in _SLOWDOWNS:
                group = [trial for trial in judged if trial.slowdown == share]
                counts.append(f"{sum(trial.failed for trial in group)} of {len(group)}")
            same = [trial.change * 100 for trial in judged if trial.slowdown == 0]
            spread = f"{statistics.stdev(same):.2f} %" if len(same) > 1 else ""
            row(judge, *counts, spread, f"{max((trial.seconds for trial in judged), default=0):.1f}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("records", type=Path, help="The .jsonl file of all trials.")
    parser.add_argument("--bursts", action="store_true", help="Load a core in bursts.")
    parser.add_argument("--same", type=int, default=200, help="Number of A/A trials (default: 200).")
    parser.add_argument("--slower", type=int, default=100, help="Number of trials per slowdown (default: 100).")
    parser.add_argument("--rivals", type=int, default=0, help="Number of A/A trials of the rivals; half per slowdown.")
    parser.add_argument("--backend", default="openvino", help="Backend to slow (default: openvino).")
    parser.add_argument("--device", default="", help="Device (default: the first; always for rivals).")
    arguments = parser.parse_args()
    os.environ["MBBENCH_SLOWED"] = arguments.backend
    records: Path = arguments.records.resolve()
    trials = read(records)
    cell = Cell(model=NARROW, role="subject", weights="random", backend="slowed", device=arguments.device)
    spec = RunSpec(cells=(cell,), data="digits", images=16, settings=Settings())
    with tempfile.TemporaryDirectory() as temporary, burst_load(arguments.bursts):
        folder = Path(temporary, "baseline")
        check.keep(spec, folder, lambda _: None)
        (entry,) = baseline.read_manifest(folder)
        shutil.copyfile(folder / entry.file_name, Path(temporary, f"candidate.{entry.artifact.format}"))
        mark_baseline(folder)
        for judge_rivals, same, slower in (
            (False, arguments.same, arguments.slower),
            (True, arguments.rivals, arguments.rivals // 2),
        ):
            for share, count in zip(_SLOWDOWNS, (same, slower, slower), strict=True):
                name = "Mann-Whitney" if judge_rivals else _MBBENCH
                done = [t for t in trials if (t.judge, t.slowdown, t.bursts) == (name, share, arguments.bursts)]
                for _ in range(count - len(done)):
                    for trial in run_trials(spec, folder, share, bursts=arguments.bursts, judge_rivals=judge_rivals):
                        trials.append(trial)
                        with records.open("ab") as file:
                            file.write(msgspec.json.encode(trial) + b"\n")
    print_table(trials)


def read(records: Path) -> list[Trial]:
    """Return the trials stored in `records`, if it exists."""
    lines = records.read_bytes().splitlines() if records.exists() else []
    return [msgspec.json.decode(line, type=Trial) for line in lines]


if __name__ == "__main__":
    if sys.argv[1] == "--child":
        child(Path(sys.argv[2]))
    else:
        main()
