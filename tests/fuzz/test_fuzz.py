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
PREVIEW = 30  # mutations of each format in every run of the tests


def read_mutations(folder: Path, start: int, stop: int, *formats: str) -> dict[str, str]:
    """Return the mutations that were neither read nor refused, with what went wrong."""
    environment = os.environ | {"MBBENCH_CACHE": str(folder / "cache"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(CHILD), str(start), str(stop), *formats]
    process = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    failed, last, count = {}, "start", 0
    for line in process.stdout.splitlines():
        if not line.startswith("{"):
            last = line
            continue
        outcome = json.loads(line)
        count += 1
        if outcome["outcome"] == "failed":
            failed[outcome["mutation"]] = outcome["detail"]
    if process.returncode != 0 or count != len(formats) * (stop - start):  # -27 is SIGPROF, the limit of time
        failed[last] = f"the process ended with {process.returncode}: {process.stderr[-2000:]}"
    return failed


def test_a_few_damaged_files_are_read_or_refused(tmp_path: Path) -> None:
    assert read_mutations(tmp_path, 0, PREVIEW, *FORMATS) == {}


@pytest.mark.slow
@pytest.mark.parametrize("kind", FORMATS)
def test_a_thousand_damaged_files_are_read_or_refused(kind: str, tmp_path: Path) -> None:
    assert read_mutations(tmp_path, 0, 1000, kind) == {}
