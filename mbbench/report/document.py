"""The content of a report, independent of its format: tables, figures, sections and notes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

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


def shorten(table: Table, hint: str) -> Table:
    """Return the table with its first 40 rows; if rows are dropped, a note counts them and adds `hint`."""
    dropped = len(table.rows) - _MAX_ROWS
    if dropped <= 0:
        return table
    shades = None if table.shades is None else table.shades[:_MAX_ROWS]
    hollow = None if table.hollow is None else table.hollow[:_MAX_ROWS]
    notes = (*table.notes, f"{dropped} more row{'s' * (dropped > 1)}: {hint}.")
    return replace(table, rows=table.rows[:_MAX_ROWS], shades=shades, hollow=hollow, notes=notes)


@dataclass(frozen=True, slots=True)
class Document:
    """A short report: a headline, tables and notes."""

    headline: str
    tables: tuple[Table, ...]
    notes: tuple[str, ...]


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


@dataclass(frozen=True, slots=True)
class Section:
    """A titled part of a page: paragraphs, then figures, then tables."""

    id: str
    title: str
    text: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """A full report. `headline`: the main findings, in sentences computed from the results."""

    title: str
    headline: tuple[str, ...]
    sections: tuple[Section, ...]
