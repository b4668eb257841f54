"""How often `mbbench check` is right: A/A gates that must pass, and slowdowns of 2 % and 5 % that must fail.

    benchmarks/gate.py RECORDS [--bursts] [--same 200] [--slower 100] [--rivals 50]

The candidate is the baseline's network in a file of other bytes, on OpenVINO with each of its calls stretched by the
share that is injected. A gate has `--fail-on p50:1%` and five seconds of timing, and five more to confirm a failure.
`--bursts` runs beside a process that loads a core in bursts of 0.1 to 1 s, as long idle.

The rivals judge two separate runs of each, one after the other, of 2.5 s of samples in a process of its own, from the
same samples: pytest-benchmark's `--benchmark-compare-fail=median:1%`, `pyperf compare_to --min-speed 1`, and a
Mann-Whitney test at 1 % (SciPy). They need `pip install pytest-benchmark pyperf`; without `--rivals` they do not run.

Trials are appended to RECORDS, a .jsonl file, and the table is of all in there: what was cut off goes on.
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

_SLOWED = Path(__file__).parent / "slowed"  # this process finds the backend there, and so do its children
sys.path.insert(0, str(_SLOWED))
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(_SLOWED), os.environ.get("PYTHONPATH"))))

from mbbench_slowed import MARK, SlowedBackend  # noqa: E402

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
_OURS = "mbbench check"


@dataclass(frozen=True, slots=True)
class Trial:
    """One gate's answer. `seconds`: from its start to its verdict."""

    judge: str
    slowdown: float
    bursts: bool
    failed: bool
    change: float
    seconds: float


@contextlib.contextmanager
def injected(share: float) -> Iterator[None]:
    os.environ["MBBENCH_SLOWDOWN"] = str(share)
    try:
        yield
    finally:
        del os.environ["MBBENCH_SLOWDOWN"]


def _burst() -> None:
    chance = random.Random(0)
    while True:
        end = time.monotonic() + chance.uniform(0.1, 1)
        while time.monotonic() < end:
            pass
        time.sleep(chance.uniform(0.1, 1))


@contextlib.contextmanager
def load(wanted: bool) -> Iterator[None]:
    if not wanted:
        yield
        return
    process = multiprocessing.get_context("spawn").Process(target=_burst, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def marked(folder: Path) -> None:
    """Give the one baseline in `folder` other bytes, and the mark that spares it."""
    (kept,) = baseline.load(folder)
    model = onnx.load(folder / kept.file)
    model.doc_string = MARK
    content = model.SerializeToString()
    other = folder.parent / "marked.onnx"
    other.write_bytes(content)
    info = replace(kept.artifact, sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))
    baseline.keep(folder, [(kept.cell, Exported(other, info), kept.versions)])


def ours(spec: RunSpec, folder: Path) -> tuple[bool, float]:
    checked = check.check(spec, folder, changes.limits([_LIMIT]), _SECONDS, lambda _: None)
    (cell,) = checked.cells
    (verdict,) = cell.verdicts
    assert verdict.change.change is not None
    return verdict.outcome == "fail", verdict.change.change


def separate(path: Path, share: float) -> list[float]:
    """Milliseconds of each call in `_SECONDS` / 2 of a process of its own, as any benchmark of one thing measures."""
    command = [sys.executable, __file__, "--child", str(path)]
    environment = {**os.environ, "MBBENCH_SLOWDOWN": str(share), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, check=True)
    return msgspec.json.decode(done.stdout, type=list[float])


def child(path: Path) -> None:
    os.sched_setaffinity(0, pick_cpus(1))
    own = Artifact(path=path, format="onnx", precision="fp32", dialect="fp32", spec=NARROW, batch=1, sha256="")
    inputs = images(NARROW)
    with SlowedBackend().open(own, "", threads=1, stage=lambda _: None) as session, no_garbage_collection():
        warm_up(lambda: session.run(inputs), max_s=1.0)
        half = _SECONDS / 2
        samples = time_calls(lambda: session.run(inputs), min_samples=100, min_s=half, max_s=half)
    sys.stdout.buffer.write(msgspec.json.encode([ns / 1e6 for ns in samples]))


def rivals(before: list[float], after: list[float]) -> Iterator[tuple[str, bool, float]]:
    """Each rival's verdict on the same samples, with its own measure of the change."""
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
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return "slower" in said, statistics.fmean(after) / statistics.fmean(before) - 1


def trials(spec: RunSpec, folder: Path, share: float, *, bursts: bool, judge_rivals: bool) -> Iterator[Trial]:
    """One of ours, or one of each rival."""
    start = time.monotonic()
    if not judge_rivals:
        with injected(share):
            failed, change = ours(spec, folder)
        yield Trial(_OURS, share, bursts, failed, change, time.monotonic() - start)
        return
    (kept,) = baseline.load(folder)
    candidate = folder.parent / "candidate.onnx"
    before, after = separate(folder / kept.file, 0.0), separate(candidate, share)
    spent = time.monotonic() - start
    for name, failed, change in rivals(before, after):
        yield Trial(name, share, bursts, failed, change, spent)


def table(found: list[Trial]) -> None:
    for bursts in sorted({trial.bursts for trial in found}):
        print("\nbeside a process that loads a core in bursts" if bursts else "\nnothing else on the machine")
        row("judge", "A/A failed", "2 % caught", "5 % caught", "A/A spread", "seconds")
        for judge in dict.fromkeys(trial.judge for trial in found):
            own = [trial for trial in found if trial.bursts == bursts and trial.judge == judge]
            counts = []
            for share in _SLOWDOWNS:
                group = [trial for trial in own if trial.slowdown == share]
                counts.append(f"{sum(trial.failed for trial in group)} of {len(group)}")
            same = [trial.change * 100 for trial in own if trial.slowdown == 0]
            spread = f"{statistics.stdev(same):.2f} %" if len(same) > 1 else ""
            row(judge, *counts, spread, f"{max((trial.seconds for trial in own), default=0):.1f}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("records", type=Path)
    parser.add_argument("--bursts", action="store_true")
    parser.add_argument("--same", type=int, default=200)
    parser.add_argument("--slower", type=int, default=100)
    parser.add_argument("--rivals", type=int, default=0, help="A/A trials of these; half as many slower ones")
    arguments = parser.parse_args()
    records: Path = arguments.records.resolve()
    found = read(records)
    cell = Cell(model=NARROW, role="subject", weights="random", backend="slowed", device="")
    spec = RunSpec(cells=(cell,), data="digits", images=16, settings=Settings())
    with tempfile.TemporaryDirectory() as temporary, load(arguments.bursts):
        folder = Path(temporary, "baseline")
        check.keep(spec, folder, lambda _: None)
        (kept,) = baseline.load(folder)
        shutil.copyfile(folder / kept.file, Path(temporary, "candidate.onnx"))
        marked(folder)
        for judge_rivals, same, slower in (
            (False, arguments.same, arguments.slower),
            (True, arguments.rivals, arguments.rivals // 2),
        ):
            for share, wanted in zip(_SLOWDOWNS, (same, slower, slower), strict=True):
                name = "Mann-Whitney" if judge_rivals else _OURS
                known = [t for t in found if (t.judge, t.slowdown, t.bursts) == (name, share, arguments.bursts)]
                for _ in range(wanted - len(known)):
                    for trial in trials(spec, folder, share, bursts=arguments.bursts, judge_rivals=judge_rivals):
                        found.append(trial)
                        with records.open("ab") as file:
                            file.write(msgspec.json.encode(trial) + b"\n")
    table(found)


def read(records: Path) -> list[Trial]:
    lines = records.read_bytes().splitlines() if records.exists() else []
    return [msgspec.json.decode(line, type=Trial) for line in lines]


if __name__ == "__main__":
    if sys.argv[1] == "--child":
        child(Path(sys.argv[2]))
    else:
        main()
