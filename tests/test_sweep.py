"""A sweep measures what is not known, whatever ended the one before."""

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
from mbbench.events import Event, Measuring
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


def test_what_is_known_is_not_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    (first,) = sweep.sweep(replace(SPEC, cells=CELLS[:1]), path, lambda _: None)
    events: list[Event] = []
    both = list(sweep.sweep(SPEC, path, events.append))
    assert measured(events) == ["0.5 MobileNet-32 on onnxruntime"]
    assert both == store.read(path) and both[0] == first
    events.clear()
    assert list(sweep.sweep(SPEC, path, events.append)) == both
    assert measured(events) == []


def test_a_result_that_failed_or_was_measured_otherwise_is_not_known(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    one = replace(SPEC, cells=CELLS[:1])
    (first,) = sweep.sweep(one, path, lambda _: None)
    path.unlink()
    store.append(path, replace(first, failure=Failure(cause="killed", remedy="again", exit_code=7)))
    events: list[Event] = []
    (again,) = sweep.sweep(one, path, events.append)
    assert (again.failure, len(measured(events))) == (None, 1)
    longer = replace(one, settings=replace(SETTINGS, min_samples=21))
    list(sweep.sweep(longer, path, events.append))
    assert len(measured(events)) == 2


def test_a_sweep_is_resumed_with_what_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with pytest.raises(UsageError, match=r"no sweep into .*results.jsonl was begun; name its --results"):
        sweep.resumed(path)
    list(sweep.sweep(replace(SPEC, cells=CELLS[:1]), path, lambda _: None))
    assert sweep.resumed(path) == replace(SPEC, cells=CELLS[:1])
    (tmp_path / "results.sweep.json").write_text("{")
    with pytest.raises(UsageError, match=r"results.sweep.json cannot be read: .*; begin the sweep anew"):
        sweep.resumed(path)


@pytest.mark.slow
def test_a_sweep_killed_at_random_points_measures_every_cell_once(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(PROFILE)
    command = [sys.executable, "-m", "mbbench", "sweep", "--output", "json", "--results", "found.jsonl"]
    wanted = ["--profile", "tiny.toml", "--alpha", "0.25-1+0.25"]
    chance = random.Random(7)
    path = tmp_path / "found.jsonl"
    before: list[str] = []
    killed = 0
    while True:
        asked = ["--resume"] if (tmp_path / "found.sweep.json").exists() else wanted
        process = subprocess.Popen(
            [*command, *asked], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            out, _ = process.communicate(timeout=chance.uniform(1, 15))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            killed += 1
        else:
            break
        now = [result.id for result in store.read(path)] if path.exists() else []
        assert now[: len(before)] == before
        before = now
    assert process.returncode == 0 and killed > 2
    counts = Counter(result.cell.model.alpha for result in store.read(path))
    assert counts == {0.25: 1, 0.5: 1, 0.75: 1, 1.0: 1}
    assert [row["cell"]["model"]["alpha"] for row in json.loads(out)] == [0.25, 0.5, 0.75, 1.0]
