"""A report for a terminal, with Rich."""

from __future__ import annotations

from io import StringIO

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from mbbench.report.document import Document, Page, Table

_NAME = 24  # characters of a row's name, from which on it may wrap


def render(content: Document, *, width: int, color: bool) -> str:
    console = _console(width, color)
    console.print()
    console.print(Text(content.headline, style="bold green"))
    for table in content.tables:
        render_table(console, table)
    if content.notes:
        console.print()
        console.print(Text("Notes", style="bold"))
        for note in content.notes:
            grid = RichTable.grid(padding=(0, 1))
            grid.add_row("-", Text(note))
            console.print(grid)
    return _text(console)


def render_page(page: Page, *, width: int, color: bool) -> str:
    """The whole report; a plot is said in words."""
    console = _console(width, color)
    console.print()
    for sentence in page.headline:
        console.print(Text(sentence, style="bold green"))
    for section in page.sections:
        console.print()
        console.rule(Text(section.title, style="bold"), align="left", characters="─", style="dim")
        for paragraph in section.text:
            console.print(Text(paragraph))
        for figure in section.figures:
            console.print(Text(figure.alt, style="italic"))
        for table in section.tables:
            render_table(console, table)
    return _text(console)


def _console(width: int, color: bool) -> Console:
    return Console(file=StringIO(), width=width, force_terminal=color, no_color=not color, highlight=False)


def _text(console: Console) -> str:
    assert isinstance(console.file, StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()) + "\n"


def render_table(console: Console, table: Table) -> None:
    console.print()
    console.print(Text(table.title, style="bold"))
    grid = RichTable(box=SIMPLE_HEAD, show_header=table.header, pad_edge=False, header_style="dim", show_edge=False)
    # Long names give way, above all to figures; headers give way to names that are short.
    long = max((len(row[0]) for row in table.rows), default=0) > _NAME
    for index, column in enumerate(table.columns):
        first = index == 0
        grid.add_column(
            column,
            justify="right" if table.numeric and not first else "left",
            style="cyan" if first else None,
            no_wrap=(table.numeric and not first) if long else first,
            min_width=_NAME if first and long else None,
        )
    for row in table.rows:
        grid.add_row(*(Text(cell) for cell in row))
    console.print(grid)
    for note in table.notes:
        console.print(Text(note, style="dim"))
