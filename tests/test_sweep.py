"""A sweep measures the cells without a stored result, even after the previous sweep was killed."""

import json
import random
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from mbbench import store, sweep
from mbbench.errors import UsageError
from mbbench.events import Event, Finished, Measuring, Stated
from mbbench.result import Failure
from mbbench.spec import Cell, ModelSpec, RunSpec, Settings

SETTINGS = Settings(min_samples=20, min_s=0.01, max_s=1.0, warmup_max_s=0.5, throughput_s=0.05, bulk_batch=8)
CELLS = tuple(
    Cell(
        model=ModelSpec(alpha=alpha, resolution=32), role="subject", weights="random", backend="onnxruntime", device=""
    )
    for alpha in (0.25, 0.5)
)
SPEC = RunSpec(cells=CELLS, data="digits", images=40, settings=SETTINGS)
PROFILE = """
images = 40
weights = "random"
res = 32
backend = "onnxruntime"

[settings]
min_samples = 20
min_s = 0.01
max_s = 1.0
warmup_max_s = 0.5
throughput_s = 0.05
"""


def measured(events: list[Event]) -> list[str]:
    return [event.cell.label for event in events if isinstance(event, Measuring)]


def test_a_stored_result_is_not_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    (first,) = sweep.sweep(replace(SPEC, cells=CELLS[:1]), path, lambda _: None)
    events: list[Event] = []
    results = list(sweep.sweep(SPEC, path, events.append))
    assert measured(events) == ["0.5 MobileNet-32 on onnxruntime"]
    assert results == store.read(path) and results[0] == first
    events.clear()
    assert list(sweep.sweep(SPEC, path, events.append)) == results
    assert measured(events) == []


def test_a_failed_result_and_one_with_other_settings_are_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    spec = replace(SPEC, cells=CELLS[:1])
    (first,) = sweep.sweep(spec, path, lambda _: None)
    path.unlink()
    store.append(path, replace(first, failure=Failure(cause="killed", remedy="run it again", exit_code=7)))
    events: list[Event] = []
    (again,) = sweep.sweep(spec, path, events.append)
    assert (again.failure, len(measured(events))) == (None, 1)
    longer = replace(spec, settings=replace(SETTINGS, min_samples=21))
    list(sweep.sweep(longer, path, events.append))
    assert len(measured(events)) == 2


def test_the_spec_is_written_when_the_first_cell_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "results.jsonl"
    spec = replace(SPEC, cells=CELLS[:1])

    def refuse(*_: object) -> None:
        raise UsageError("too many threads", "give fewer")

    with monkeypatch.context() as patch:
        patch.setattr("mbbench.run.pick_cpus", refuse)
        with pytest.raises(UsageError, match="too many threads"):
            list(sweep.sweep(spec, path, lambda _: None))
    assert list(tmp_path.iterdir()) == []
    written: list[bool] = []

    def notify(event: Event) -> None:
        if isinstance(event, Measuring | Finished):
            written.append(path.with_suffix(".sweep.json").exists())

    list(sweep.sweep(spec, path, notify))
    assert written == [True, True]
    assert sweep.read_spec(path) == spec


def test_a_line_that_a_crash_cut_short_is_stated_and_its_cell_measured(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_bytes(b'{"schema":1,"id":"a')
    events: list[Event] = []
    (result,) = sweep.sweep(replace(SPEC, cells=CELLS[:1]), path, events.append)
    assert events[0] == Stated(f"{path} line 1 is left out: it was cut short")
    assert store.read(path) == [result]


def test_another_kind_of_file_is_not_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("buy milk\n")
    with pytest.raises(UsageError, match=r"notes.txt holds no result: line 1: it is not JSON"):
        list(sweep.sweep(SPEC, path, lambda _: None))
    assert path.read_text() == "buy milk\n"


def test_the_spec_of_the_last_sweep_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with pytest.raises(UsageError, match=r"no sweep to resume in .*results.jsonl; give its --results"):
        sweep.read_spec(path)
    list(sweep.sweep(replace(SPEC, cells=CELLS[:1]), path, lambda _: None))
    assert sweep.read_spec(path) == replace(SPEC, cells=CELLS[:1])
    written = json.loads((tmp_path / "results.sweep.json").read_text())
    del written["optional_backends"]  # as mbbench wrote it before that field
    (tmp_path / "results.sweep.json").write_text(json.dumps(written))
    assert sweep.read_spec(path) == replace(SPEC, cells=CELLS[:1])
    (tmp_path / "results.sweep.json").write_text("{")
    with pytest.raises(UsageError, match=r"cannot read .*results.sweep.json: .*; start the sweep again"):
        sweep.read_spec(path)


def start(folder: Path, *options: str) -> subprocess.Popen[bytes]:
    """Start `mbbench sweep` in `folder`."""
    command = [sys.executable, "-m", "mbbench", "sweep", "--format", "json", "--results", "results.jsonl", *options]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)


@pytest.mark.slow
def test_sweeps_killed_200_times_at_random_moments_measure_every_cell_once(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(PROFILE)
    path = tmp_path / "results.jsonl"
    options = ["--profile", "tiny.toml", "--alpha", "0.25-1+0.25", "--res", "32,64"]
    expected = [(alpha, side) for alpha in (0.25, 0.5, 0.75, 1.0) for side in (32, 64)]
    rng = random.Random(7)
    killed = 0
    while killed < 200:
        path.unlink(missing_ok=True)
        before: list[str] = []
        process = start(tmp_path, *options)
        while True:
            try:
                out, err = process.communicate(timeout=rng.uniform(0, 5))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.communicate()
                killed += 1
            else:
                break
            now = [result.id for result in store.read(path)] if path.exists() else []
            assert now[: len(before)] == before
            before = now
            process = (
                start(tmp_path, "--resume") if (tmp_path / "results.sweep.json").exists() else start(tmp_path, *options)
            )
        assert process.returncode == 0, err.decode()
        measured_cells = Counter((result.cell.model.alpha, result.cell.model.resolution) for result in store.read(path))
        assert measured_cells == dict.fromkeys(expected, 1)
        models = [row["cell"]["model"] for row in json.loads(out)]
        assert sorted((model["alpha"], model["resolution"]) for model in models) == expected
