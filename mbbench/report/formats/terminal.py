"""Terminal output, colored by Rich."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO

from rich.console import Console
from rich.text import Text

from mbbench.report.document import Document, Page, Table
from mbbench.report.formats import layout
from mbbench.report.formats.layout import Grid

_RULE_WIDTH = 80  # of the line beside a section's title, where lines have no limit


def render(document: Document, *, width: int | None, color: bool) -> str:
    """Return `document` as lines of at most `width` characters, or as wide as its text; only longer words stick out."""
    text = _Writer(width, color)
    text.line()
    text.paragraph(document.headline, "bold green")
    text.tables(document.tables)
    if document.notes:
        text.line()
        text.line(("Notes", "bold"))
        for note in document.notes:
            text.item(note)
    return text.value()


def render_page(page: Page, *, width: int | None, color: bool) -> str:
    """Return `page` likewise, with the text alternatives of its plots."""
    text = _Writer(width, color)
    text.line()
    for sentence in page.headline:
        text.paragraph(sentence, "bold green")
    for section in page.sections:
        text.section(section.title)
        for paragraph in section.text:
            text.paragraph(paragraph)
        for figure in section.figures:
            text.paragraph(figure.alt, "italic")
        text.tables(section.tables)
    return text.value()


def render_tables(tables: Sequence[Table], *, width: int | None, color: bool) -> str:
    """Return `tables` likewise."""
    text = _Writer(width, color)
    text.tables(tables)
    return text.value()


class _Writer:
    """Lines of styled text for a width."""

    def __init__(self, width: int | None, color: bool) -> None:
        self._width = width
        self._console = Console(file=StringIO(), force_terminal=color, no_color=not color, highlight=False)

    def line(self, *parts: str | tuple[str, str]) -> None:
        """Write one line of texts, each alone or with its style."""
        self._console.print(Text.assemble(*parts), soft_wrap=True)

    def paragraph(self, text: str, style: str = "") -> None:
        for line in layout.wrap(text, self._width):
            self.line((line, style))

    def item(self, text: str) -> None:
        """Write an item of a list."""
        for index, line in enumerate(layout.wrap(text, None if self._width is None else self._width - 2)):
            self.line(f"  {line}" if index else f"- {line}")

    def section(self, title: str) -> None:
        """Write the title of a section, with a line beside it."""
        self.line()
        *lines, last = layout.wrap(title, self._width)
        for line in lines:
            self.line((line, "bold"))
        self.line((f"{last} ", "bold"), ("─" * ((self._width or _RULE_WIDTH) - len(last) - 1), "dim"))

    def tables(self, tables: Sequence[Table]) -> None:
        for table in tables:
            self.line()
            self.paragraph(table.title, "bold")
            grids = layout.grids(table, self._width)
            for index, grid in enumerate(grids):
                if index:
                    self.line()
                self._grid(table, grid)
            if not grids and self._width is not None:
                self._records(table, self._width)
            for note in table.notes:
                self.paragraph(note, "dim")

    def _grid(self, table: Table, grid: Grid) -> None:
        if table.header:
            for name, others in layout.row_lines(table, grid, table.columns, bottom=True):
                self.line((name + others, "dim"))
            self.line("─" * grid.width)
        for row in table.rows:
            for name, others in layout.row_lines(table, grid, row):
                self.line((name, "cyan"), others)

    def _records(self, table: Table, width: int) -> None:
        for index, block in enumerate(layout.records(table, width)):
            if index and table.header:
                self.line()
            first, *others = block
            self.line((first, "cyan"))
            for line in others:
                self.line(line)

    def value(self) -> str:
        """Return the text, without spaces at the ends of lines."""
        assert isinstance(self._console.file, StringIO)
        return "\n".join(line.rstrip() for line in self._console.file.getvalue().splitlines()) + "\n"
