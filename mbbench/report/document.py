"""The content of a report, independent of its format: tables, figures, sections and notes.

Its text comes from records, which anyone may have written, so every class shows control characters as their escapes
(`errors.visible`): no format has to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from mbbench.errors import visible

_MAX_ROWS = 40


@dataclass(frozen=True, slots=True)
class Table:
    """A table of text cells.

    `numeric`: all columns but the first are right-aligned. `header`: column names are shown. `notes`: paragraphs below
    the table. `shades`: values from 0 to 1 (None: no shade) that color the cells after the first column, as a heat
    map, in formats that have colors. `hollow`: which of these cells are predicted: outlined instead of filled.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: bool = True
    header: bool = True
    notes: tuple[str, ...] = ()
    shades: tuple[tuple[float | None, ...], ...] | None = None
    hollow: tuple[tuple[bool, ...], ...] | None = None

    def __post_init__(self) -> None:
        _make_visible(self, "title", "columns", "notes")
        object.__setattr__(self, "rows", tuple(tuple(map(visible, row)) for row in self.rows))


def shorten(table: Table, hint: str) -> Table:
    """Return the table with its first 40 rows; if rows are dropped, a note counts them and adds `hint`."""
    dropped = len(table.rows) - _MAX_ROWS
    if dropped <= 0:
        return table
    shades = None if table.shades is None else table.shades[:_MAX_ROWS]
    hollow = None if table.hollow is None else table.hollow[:_MAX_ROWS]
    notes = (*table.notes, f"{dropped} more row{'s' * (dropped > 1)}: {hint}.")
    return replace(table, rows=table.rows[:_MAX_ROWS], shades=shades, hollow=hollow, notes=notes)


def join(tables: Sequence[Table], column: str) -> Table:
    """Return the rows of tables with equal columns as one table, whose first column, `column`, has their titles."""
    rows = tuple((table.title, *row) for table in tables for row in table.rows)
    return Table("", (column, *tables[0].columns), rows)


@dataclass(frozen=True, slots=True)
class Document:
    """A short report: a headline, tables and notes."""

    headline: str
    tables: tuple[Table, ...]
    notes: tuple[str, ...]

    def __post_init__(self) -> None:
        _make_visible(self, "headline", "notes")


@dataclass(frozen=True, slots=True)
class Figure:
    """A plot as plain data for Plotly, without the theme's colors of axes and text, which the page adds.

    `alt`: the text alternative, which states in words what the plot shows.
    """

    id: str
    title: str
    alt: str
    traces: tuple[dict[str, Any], ...]
    layout: dict[str, Any]
    height_px: int = 420

    def __post_init__(self) -> None:
        _make_visible(self, "title", "alt")


@dataclass(frozen=True, slots=True)
class Section:
    """A titled part of a page: paragraphs, then figures, then tables."""

    id: str
    title: str
    text: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()

    def __post_init__(self) -> None:
        _make_visible(self, "title", "text")


@dataclass(frozen=True, slots=True)
class Page:
    """A full report. `headline`: the main findings, in sentences computed from the results."""

    title: str
    headline: tuple[str, ...]
    sections: tuple[Section, ...]

    def __post_init__(self) -> None:
        _make_visible(self, "title", "headline")


def _make_visible(part: object, *names: str) -> None:
    """Replace the text in the fields `names` of a frozen instance, each a string or a tuple of strings."""
    for name in names:
        value = getattr(part, name)
        object.__setattr__(part, name, visible(value) if isinstance(value, str) else tuple(map(visible, value)))
