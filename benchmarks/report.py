"""How large a report of 500 cells is, and how soon it can be read: `benchmarks/report.py RESULTS.jsonl`.

The cells are those of RESULTS over and over, each time of another width. The page is opened three times in Chromium
(`apt install chromium`); the times are the browser's own, from the start of the navigation to the first paint, to a
document that answers, and to the last plot. Targets: under 6 MB, and open within a second.
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
from mbbench.report.selection import measured, subjects
from mbbench.result import Result

_CELLS = 500
_TIMES = """() => [
  performance.getEntriesByName("first-contentful-paint")[0].startTime,
  performance.getEntriesByType("navigation")[0].domInteractive,
  performance.now(),
]"""


def many(results: list[Result]) -> list[Result]:
    known = [one.result for one in measured(subjects(results))]
    return [
        replace(result, cell=replace(result.cell, model=replace(result.cell.model, alpha=1 + number / 1000)))
        for number, result in enumerate(islice(cycle(known), _CELLS))
    ]


def main(source: Path) -> None:
    page = html.render(many(store.read(source)))
    row("cells", "MB", "first paint, ms", "interactive, ms", "all drawn, ms")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = Path(folder, "report.html")
        path.write_text(page)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for _ in range(3):
            opened = browser.new_page()
            opened.goto(path.as_uri())
            opened.wait_for_selector("html[data-drawn=true]", timeout=120_000)
            times = opened.evaluate(_TIMES)
            row(str(_CELLS), f"{len(page.encode()) / 1e6:.2f}", *(f"{time:.0f}" for time in times))
            opened.close()
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
