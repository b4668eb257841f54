"""Lines of text for a width: tables and paragraphs are broken between words, and no word or figure is ever cut."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from rich.cells import cell_len

from mbbench.report.document import Table

_NAME_WIDTH = 24  # a name wraps to this many characters before headers wrap
_SEPARATOR, _INDENT = 3, 2  # characters between two columns, and before what belongs to the line above
_MIN_COLUMNS = 2  # besides names, on average, of the tables into which a wide one is split
_MAX_HEIGHT = 6  # lines of a row of text; a table with taller rows is easier to read as records
_MAX_FIGURE = 30  # characters of a cell of a numeric table that is never broken, although it has spaces
_UNITS = r"(?:ms|s|h|MB|kB|GB|GiB|MHz|GHz|M|%|pt|points?|mJ|J|W|images/s|GB/s|GMAC/s)"
# An interval, a number with its unit, or a word; each with the punctuation around it.
_PIECE = re.compile(rf"\S*\[[^\]\s]+, [^\]\s]+\]\S*|\S*\d \b{_UNITS}(?![\w/])\S*|(?:\S*± )?\S*\d %\S*|\S+")


@dataclass(frozen=True, slots=True)
class Grid:
    """Some columns of a table, by index, each with its width in characters."""

    columns: tuple[int, ...]
    widths: tuple[int, ...]

    @property
    def width(self) -> int:
        return _total(self.widths)


def wrap(text: str, width: int | None) -> list[str]:
    """Return `text` in lines of at most `width` characters, or in one line if `width` is None.

    A word, a figure with its unit, or an interval that is longer has a line of its own.
    """
    if width is None or cell_len(text) <= width:
        return [text]
    lines: list[str] = []
    for piece in _PIECE.findall(text):
        if lines and cell_len(lines[-1]) + 1 + cell_len(piece) <= width:
            lines[-1] += f" {piece}"
        else:
            lines.append(piece)
    return lines or [""]


def grids(table: Table, width: int | None) -> tuple[Grid, ...]:
    """Return the tables into which `table` is split to fit into `width`, each with its first column.

    Usually this is the table itself. The result is empty if the table must be turned: into `records`.
    """
    natural = [max(map(cell_len, column), default=0) for column in _columns(table)]
    everything = tuple(range(len(natural)))
    if width is None or _total(natural) <= width:
        return (Grid(everything, tuple(natural)),)
    narrowest = _narrowest(table)
    if _total(narrowest) <= width:
        grid = Grid(everything, _widths(table, everything, natural, narrowest, width))
        return (grid,) if table.numeric or _height(table, grid) <= _MAX_HEIGHT else ()
    if not table.numeric:
        return ()
    for name in (min(natural[0], max(_NAME_WIDTH, narrowest[0])), narrowest[0]):
        parts = _split(table, [name, *narrowest[1:]], width)
        fits = all(_total([name, *(narrowest[i] for i in part[1:])]) <= width for part in parts)
        if fits and len(parts) <= (len(natural) - 1) / _MIN_COLUMNS:
            return tuple(Grid(part, _widths(table, part, natural, narrowest, width)) for part in parts)
    return ()


def row_lines(table: Table, grid: Grid, row: Sequence[str], *, bottom: bool = False) -> Iterator[tuple[str, str]]:
    """Yield the lines of a row or of the header, each as the text of the first column and that of the others.

    Cells with fewer lines than the row stand at its top, or at its `bottom`.
    """
    cells = [wrap(row[i] if i < len(row) else "", width) for i, width in zip(grid.columns, grid.widths, strict=True)]
    gaps = [[""] * (max(map(len, cells)) - len(cell)) for cell in cells]
    filled = [gap + cell if bottom else cell + gap for cell, gap in zip(cells, gaps, strict=True)]
    for line in zip(*filled, strict=True):
        name, *others = (
            _pad(text, width, right=table.numeric and position > 0)
            for position, (text, width) in enumerate(zip(line, grid.widths, strict=True))
        )
        yield name, "".join(" " * _SEPARATOR + text for text in others)


def records(table: Table, width: int) -> Iterator[list[str]]:
    """Yield each row of `table` as a block of lines `column: value`; without a header, the name, then the values."""
    if not table.header:
        for name, *values in table.rows:
            lines = [line for value in values for line in wrap(value, width - _INDENT)]
            yield [*wrap(name, width), *(" " * _INDENT + line for line in lines)]
        return
    labels = [f"{column}:" if column else "" for column in table.columns]
    margin = max(map(cell_len, labels)) + 1
    longest = max((cell_len(piece) for row in table.rows for text in row for piece in _pieces(text)), default=0)
    for row in table.rows or (("",) * len(labels),):
        block = []
        for label, value in zip_longest(labels, row, fillvalue=""):
            if margin + longest <= width:
                first, *rest = wrap(value, width - margin)
                block += [_pad(label, margin) + first, *(" " * margin + line for line in rest)]
            else:
                first, *rest = wrap(f"{label} {value}".strip(), width - _INDENT)
                block += [first, *(" " * _INDENT + line for line in rest)]
        yield block


def _columns(table: Table) -> list[tuple[str, ...]]:
    lines = (table.columns, *table.rows) if table.header else table.rows
    return list(zip_longest(*lines, fillvalue="")) or [(column,) for column in table.columns]


def _pieces(text: str, *, figure: bool = False) -> list[str]:
    """Return the parts of a cell between which a line may be broken."""
    if figure and text and len(text) <= _MAX_FIGURE:
        return [text]
    return _PIECE.findall(text) or [""]


def _narrowest(table: Table) -> list[int]:
    """Return the width of each column at which no word and no figure is cut."""
    return [
        max(
            cell_len(piece)
            for row, text in enumerate(column, -table.header)
            for piece in _pieces(text, figure=table.numeric and index > 0 and row >= 0)
        )
        for index, column in enumerate(_columns(table))
    ]


def _split(table: Table, widths: Sequence[int], width: int) -> list[tuple[int, ...]]:
    """Return the columns, by index, in tables that fit into `width` if they can, each with the first column.

    A column whose name is not unique, such as `ratio`, stays with the column before it, which it is about.
    """
    groups: list[tuple[int, ...]] = []
    for index, column in enumerate(table.columns[1:], 1):
        if groups and table.columns.count(column) > 1:
            groups[-1] = (*groups[-1], index)
        else:
            groups.append((index,))
    parts: list[tuple[int, ...]] = [(0,)]
    for group in groups:
        if len(parts[-1]) > 1 and _total([widths[index] for index in (*parts[-1], *group)]) > width:
            parts.append((0,))
        parts[-1] += group
    return parts


def _widths(
    table: Table, part: Sequence[int], natural: Sequence[int], narrowest: Sequence[int], width: int
) -> tuple[int, ...]:
    """Return widths of the columns in `part` that fit into `width`: a long name gives way first, then headers."""
    widths, minimum = [natural[i] for i in part], [narrowest[i] for i in part]
    name = min(widths[0], max(_NAME_WIDTH, minimum[0]))
    stages = [[name, *widths[1:]]] if table.numeric else []
    for limits in (*stages, [name, *minimum[1:]], minimum):
        while _total(widths) > width:
            wide = [index for index, size in enumerate(widths) if size > limits[index]]
            if not wide:
                break
            widths[max(reversed(wide), key=widths.__getitem__)] -= 1
    return tuple(widths)


def _height(table: Table, grid: Grid) -> int:
    return max(
        (len(wrap(text, width)) for row in table.rows for text, width in zip(row, grid.widths, strict=False)), default=0
    )


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + _SEPARATOR * (len(widths) - 1)


def _pad(text: str, width: int, *, right: bool = False) -> str:
    space = " " * (width - cell_len(text))
    return space + text if right else text + space
