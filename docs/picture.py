"""The README's picture: `python docs/picture.py RESULTS.jsonl > report.svg` draws the terminal report of real results.

docs/report.png is that file as a browser shows it.
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
from mbbench.report.summary import document

_WIDTH = 96


def main(results: Path) -> None:
    report = terminal.render(document(list(store.read(results))), width=_WIDTH, color=True)
    console = Console(record=True, width=_WIDTH, file=StringIO())
    console.print(Text.from_ansi(report.strip("\n")))
    print(console.export_svg(title="make demo", theme=MONOKAI))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
