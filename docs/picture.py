"""Draw the terminal report of stored results as SVG: `python docs/picture.py RESULTS.jsonl > report.svg`.

The README's picture, docs/report.png, is a screenshot of that SVG in a browser.
"""

from __future__ import annotations

import sys
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from mbbench import store
from mbbench.report.formats import terminal
from mbbench.report.summary import summary_document

_WIDTH = 96


def main(results: Path) -> None:
    report = terminal.render(summary_document(list(store.read(results))), width=_WIDTH, color=True)
    console = Console(record=True, width=_WIDTH, file=StringIO())
    console.print(Text.from_ansi(report.strip("\n")))
    print(console.export_svg(title="make demo", theme=MONOKAI))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
