"""Damaged and hostile files: each is read, or refused in one line with exit code 2. Nothing hangs, and no code runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CHILD = Path(__file__).parent / "child.py"
ROOT = Path(__file__).parents[2]
FORMATS = ("pytorch", "safetensors", "hdf5", "onnx", "sidecar", "profile", "image", "idx")
QUICK = {"onnx": 8, "image": 20}  # mutations in each run of the tests; of the other formats 30


def read_mutations(kind: str, folder: Path, start: int, stop: int) -> dict[int, str]:
    """Return the seeds of the mutations that were neither read nor refused, with what went wrong."""
    (folder / "in").mkdir()
    environment = os.environ | {"MBBENCH_CACHE": str(folder / "cache"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(CHILD), kind, "in", str(start), str(stop)]
    process = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    failed, last = {}, start - 1
    for line in process.stdout.splitlines():
        if not line.startswith("{"):
            last = int(line)
            continue
        outcome = json.loads(line)
        if outcome["outcome"] == "failed":
            failed[outcome["seed"]] = outcome["detail"]
    if process.returncode != 0:  # killed by a signal or by its limit of time: -27 is SIGPROF
        failed[last] = f"the process ended with {process.returncode}: {process.stderr[-2000:]}"
    elif last != stop - 1:
        failed[last + 1] = "it was not read"
    return failed


@pytest.mark.parametrize("kind", FORMATS)
def test_a_few_damaged_files_are_read_or_refused(kind: str, tmp_path: Path) -> None:
    assert read_mutations(kind, tmp_path, 0, QUICK.get(kind, 30)) == {}


@pytest.mark.slow
@pytest.mark.parametrize("start", range(0, 1000, 250))
@pytest.mark.parametrize("kind", FORMATS)
def test_a_thousand_damaged_files_are_read_or_refused(kind: str, start: int, tmp_path: Path) -> None:
    assert read_mutations(kind, tmp_path, start, start + 250) == {}
