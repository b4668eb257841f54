"""Seconds that `mbbench --help` and the reading commands take, next to importing Typer and Rich.

    .venv/bin/python benchmarks/commands.py PAGE.html

The commands read the records of PAGE, an HTML report: the first 100, or 10,000 that repeat them on other devices. All
times alternate with `python -c "import typer, rich"`. Targets: `--help` at most 1.15 times that; 100 records in at most
1.0 s (`verify` 3 s), 10,000 in at most 5 s.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from time import perf_counter

import msgspec
from common import alternate, row

from mbbench.report.formats import html
from mbbench.result import Result

_ROUNDS, _FEW_ROUNDS = 10, 3
_IMPORTS = (sys.executable, "-c", "import typer, rich")


def seconds(*command: str) -> float:
    before = perf_counter()
    subprocess.run(command, capture_output=True)  # `choose` exits with 5 if no cell is within the limits
    return perf_counter() - before


def write(path: Path, results: list[Result], count: int) -> str:
    """Write `count` results that repeat `results` on other devices; return the path."""
    with path.open("wb") as file:
        for number, result in enumerate(islice(cycle(results), count)):
            cell = replace(result.cell, device=f"{result.cell.device}{number // len(results) or ''}")
            file.write(msgspec.json.encode(replace(result, id=f"{number:016x}", cell=cell)) + b"\n")
    return str(path)


def main(page: Path) -> None:
    mbbench = str(Path(sys.executable).with_name("mbbench"))
    results = html.read_records(page.read_text(), str(page))
    with tempfile.TemporaryDirectory() as folder:
        few, many = (write(Path(folder, f"{count}.jsonl"), results, count) for count in (100, 10_000))
        report = str(Path(folder, "report.html"))
        commands = {
            "--help": (("--help",), _ROUNDS),
            "run --help": (("run", "--help"), _ROUNDS),
            "cost --paper": (("cost", "--paper"), _ROUNDS),
            "backends": (("backends",), _ROUNDS),
            "report, 100": (("report", few, "-o", report), _ROUNDS),
            "verify, 100": (("verify", report), _ROUNDS),
            "show, 100": (("show", few), _ROUNDS),
            "choose, 100": (("choose", few, "--max-p99", "5ms"), _ROUNDS),
            "compare, 100": (("compare", few, few), _ROUNDS),
            "explain, 100": (("explain", few), _ROUNDS),
            "report, 10000": (("report", many, "-o", report), _FEW_ROUNDS),
            "show, 10000": (("show", many), _FEW_ROUNDS),
            "choose, 10000": (("choose", many, "--max-p99", "5ms"), _FEW_ROUNDS),
        }
        row("command, records", "s", "imports, s", "ratio")
        for name, (arguments, rounds) in commands.items():
            row(name, *alternate(lambda: seconds(mbbench, *arguments), lambda: seconds(*_IMPORTS), rounds))  # noqa: B023


if __name__ == "__main__":
    main(Path(sys.argv[1]))
