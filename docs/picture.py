"""Take the README's picture of a report in a browser: `python docs/picture.py reports/reference/report.html`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

_PICTURE = Path(__file__).parent / "report.png"
_WIDTH, _HEIGHT = 1200, 1180


def main(page_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": _WIDTH, "height": _HEIGHT})
        page.goto(page_path.resolve().as_uri())
        page.locator(".js-plotly-plot").first.wait_for()
        page.screenshot(path=_PICTURE)
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
