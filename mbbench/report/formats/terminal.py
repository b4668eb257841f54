"""Terminal output, by Rich."""

from __future__ import annotations

from io import StringIO
from itertools import zip_longest

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from mbbench.report.document import Document, Page, Table

_NAME_WIDTH = 24  # a name wraps to this many characters before headers wrap
_SEPARATOR = 3  # characters between two columns


def render(document: Document, *, width: int, color: bool) -> str:
    """Return `document` as lines of at most `width` characters."""
    console = _console(width, color)
    console.print()
    console.print(Text(document.headline, style="bold green"))
    for table in document.tables:
        render_table(console, table)
    if document.notes:
        console.print()
        console.print(Text("Notes", style="bold"))
        for note in document.notes:
            grid = RichTable.grid(padding=(0, 1))
            grid.add_row("-", Text(note))
            console.print(grid)
    return _text(console)


def render_page(page: Page, *, width: int, color: bool) -> str:
    """Return `page` as lines of at most `width` characters, with the text alternatives of its plots."""
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
    """Print `table` as wide as its text, or wrapped to the width of `console`."""
    console.print()
    console.print(Text(table.title, style="bold"))
    grid = RichTable(box=SIMPLE_HEAD, show_header=table.header, pad_edge=False, header_style="dim", show_edge=False)
    widths = _column_widths(table, console.width - _SEPARATOR * (len(table.columns) - 1))
    for index, (column, width) in enumerate(zip(table.columns, widths, strict=True)):
        first = index == 0
        grid.add_column(
            Text(column),
            justify="right" if table.numeric and not first else "left",
            style="cyan" if first else None,
            width=width,
        )
    for row in table.rows:
        grid.add_row(*(Text(cell) for cell in row))
    console.print(grid)
    for note in table.notes:
        console.print(Text(note, style="dim"))


def _column_widths(table: Table, available: int) -> list[int]:
    """Return column widths that add up to `available` at most, if no word and no figure is wider than its column.

    Rich would cut off the last column. Names give way before headers, down to 24 characters; figures never do.
    """
    lines = (table.columns, *table.rows) if table.header else table.rows
    columns = list(zip_longest(*lines, fillvalue="")) or [(column,) for column in table.columns]
    widths = [max(map(cell_len, column)) for column in columns]
    narrowest = [max(cell_len(word) for text in column for word in text.split(" ")) for column in columns]
    if table.numeric:
        figures = [max(map(cell_len, column[table.header :]), default=0) for column in columns]
        narrowest = [narrowest[0], *map(max, narrowest[1:], figures[1:])]
    name = min(widths[0], max(_NAME_WIDTH, narrowest[0]))
    stages = [[name, *widths[1:]]] if table.numeric else []
    for minimum in (*stages, [name, *narrowest[1:]], narrowest):
        while sum(widths) > available:
            wide = [index for index, width in enumerate(widths) if width > minimum[index]]
            if not wide:
                break
            widths[max(reversed(wide), key=widths.__getitem__)] -= 1
    return widths
