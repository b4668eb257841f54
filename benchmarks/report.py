"""Size and loading time of an HTML report of 500 cells. Targets: under 6 MB, and open within a second.

    .venv/bin/python benchmarks/report.py RESULTS.jsonl

The cells repeat those of RESULTS with different widths. Chromium (`apt install chromium`) opens the page three times
and reports the time from the start of the navigation to the first paint, to an interactive document and to the last
plot.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path

from common import row
from playwright.sync_api import sync_playwright

from mbbench import store
from mbbench.report.formats import html
from mbbench.report.selection import measurements, subjects
from mbbench.result import Result

_CELLS = 500
_TIMES = """() => [
  performance.getEntriesByName("first-contentful-paint")[0].startTime,
  performance.getEntriesByType("navigation")[0].domInteractive,
  performance.now(),
]"""


def repeat(results: list[Result]) -> list[Result]:
    """Return 500 results that repeat the measured ones of `results` with different widths."""
    sources = [measurement.result for measurement in measurements(subjects(results))]
    return [
        replace(result, cell=replace(result.cell, model=replace(result.cell.model, alpha=1 + number / 1000)))
        for number, result in enumerate(islice(cycle(sources), _CELLS))
    ]


def main(source: Path) -> None:
    page = html.render(repeat(store.read(source)))
    row("cells", "MB", "first paint, ms", "interactive, ms", "all drawn, ms")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = Path(folder, "report.html")
        path.write_text(page)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for _ in range(3):
            tab = browser.new_page()
            tab.goto(path.as_uri())
            tab.wait_for_selector("html[data-drawn=true]", timeout=120_000)
            times = tab.evaluate(_TIMES)
            row(str(_CELLS), f"{len(page.encode()) / 1e6:.2f}", *(f"{time:.0f}" for time in times))
            tab.close()
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
