"""What a report says, before it has a format: tables and notes, as text."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

_SHOWN = 40


@dataclass(frozen=True, slots=True)
class Table:
    """`numeric` right-aligns all columns but the first; `header` shows their names; `notes` are paragraphs below.

    `shades` (0 to 1, or None) make a heat map of the cells after the first column, where the format has colours.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: bool = True
    header: bool = True
    notes: tuple[str, ...] = ()
    shades: tuple[tuple[float | None, ...], ...] | None = None


def shorten(table: Table, whole: str) -> Table:
    """For people, who read no more than so many rows; `whole` says where all are."""
    left = len(table.rows) - _SHOWN
    if left <= 0:
        return table
    shades = None if table.shades is None else table.shades[:_SHOWN]
    return replace(table, rows=table.rows[:_SHOWN], shades=shades, notes=(*table.notes, f"{left} more: {whole}."))


@dataclass(frozen=True, slots=True)
class Document:
    headline: str
    tables: tuple[Table, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Figure:
    """A plot as plain data for Plotly; `alt` says in words what it shows, for whoever does not see it.

    Colours of axes and text are left to the page, whose theme may change.
    """

    id: str
    title: str
    alt: str
    traces: tuple[dict[str, Any], ...]
    layout: dict[str, Any]
    height_px: int = 420


@dataclass(frozen=True, slots=True)
class Section:
    id: str
    title: str
    text: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """A whole report. `headline`: what it comes to, in sentences computed from the results."""

    title: str
    headline: tuple[str, ...]
    sections: tuple[Section, ...]
