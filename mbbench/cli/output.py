"""Writing to standard output in the format of --format, and writing report files."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mbbench.errors import UsageError

if TYPE_CHECKING:
    from mbbench.report.document import Document, Table
    from mbbench.result import Result


def write(text: str) -> None:
    """Write `text` to standard output and flush it."""
    sys.stdout.write(text)
    sys.stdout.flush()


def write_record(record: object) -> None:
    """Write plain data as indented JSON to standard output."""
    write(record_text(record))


def record_text(record: object) -> str:
    """Return plain data as indented JSON."""
    from mbbench.report.formats import json

    return json.render_record(record)


def write_paragraph(text: str) -> None:
    """Write `text` in lines that fit standard output."""
    from mbbench.report.formats import layout

    write("\n".join(layout.wrap(text, text_width())) + "\n")


def write_tables(tables: Sequence[Table], record: object, format: str) -> None:
    """Write `tables` to standard output; as JSON, write `record` instead, the plain data behind them."""
    from mbbench.report.formats import markdown, terminal

    match format:
        case "json":
            write_record(record)
        case "markdown":
            write("\n\n".join(map(markdown.render_table, tables)) + "\n")
        case "csv":
            from mbbench.report.formats import csv

            write("".join(csv.render_rows([table.columns, *table.rows]) for table in tables))
        case _:
            write(terminal.render_tables(tables, width=text_width(), color=has_color()))


def text_width() -> int | None:
    """Return the width of lines on standard output: that of COLUMNS or of the terminal; None: lines have no limit."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns) > 0:
        return int(columns)
    return os.get_terminal_size(sys.stdout.fileno()).columns or None if sys.stdout.isatty() else None


def has_color() -> bool:
    """Return whether standard output is a terminal that shows colors."""
    from rich.console import Console

    console = Console()
    return console.is_terminal and not console.no_color


def document_text(document: Document, format: str) -> str:
    """Return the document as Markdown, or as text for this terminal."""
    from mbbench.report.formats import markdown, terminal

    if format == "markdown":
        return markdown.render(document)
    return terminal.render(document, width=text_width(), color=has_color())


def results_text(results: Sequence[Result], format: str) -> str:
    """Return the report on `results`: their records as JSON or CSV, or a summary for people."""
    from mbbench.report import summary
    from mbbench.report.formats import csv, json

    match format:
        case "json":
            return json.render(results)
        case "csv":
            return csv.render(results)
        case _:
            return document_text(summary.summary_document(results), format)


def count_text(count: int, noun: str) -> str:
    """Return `1 result` or `2 results`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def require_suffix(path: Path, suffixes: Sequence[str]) -> None:
    """Raise `UsageError` if `path` does not end with one of `suffixes`."""
    if path.suffix not in suffixes:
        raise UsageError(f"{path} has no known format", f"end its name with one of {', '.join(suffixes)}")


def require_target(path: Path) -> None:
    """Raise `UsageError` if `path` is a folder or in a file: better before the work than after."""
    remedy = "choose another path"
    try:
        if path.is_dir():
            raise UsageError(f"cannot write {path} (it is a folder)", remedy)
        parent = next(parent for parent in path.absolute().parents if parent.exists())
    except OSError as error:
        raise UsageError(f"cannot write {path} ({error.strerror})", remedy) from error
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise UsageError(f"cannot write {path} ({parent} is not a folder to write to)", remedy)


def require_folder(path: Path) -> None:
    """Raise `UsageError` if `path` cannot become a folder to write to."""
    with suppress(OSError):  # `require_target` reports it
        if path.exists() and not path.is_dir():
            raise UsageError(f"cannot write to {path} (it is not a folder)", "choose another path")
    require_target(path / "file")


def write_file(path: Path, text: str) -> None:
    """Write `text` to `path`, creating its folder. Raises `UsageError` if that is not possible."""
    remedy = "choose another file with -o"
    if path.is_fifo():  # which waits for a reader
        raise UsageError(f"cannot write {path} (not a regular file)", remedy)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except OSError as error:
        raise UsageError(f"cannot write {path} ({error.strerror})", remedy) from error
