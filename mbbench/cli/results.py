"""`mbbench report`, `show`, `choose`, `verify` and `explain`: the commands that read stored results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mbbench.cli import options, output
from mbbench.cli.options import RESULTS
from mbbench.cli.progress import tell
from mbbench.errors import RequirementError, UsageError
from mbbench.spec import bytes_of, seconds_of

if TYPE_CHECKING:
    from mbbench.result import Result


def report(
    results: Annotated[list[Path], typer.Argument(metavar="RESULTS...", help="Files that `mbbench run` appended to.")],
    files: Annotated[
        list[Path],
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="File to write: .html, .md, .csv, .json or .xml (JUnit). Can be repeated.",
        ),
    ],
) -> None:
    """Write stored results as a report: one HTML file that needs no network, or text.

    If a cell has several results, the newest counts.
    """
    for file in files:
        output.require_suffix(file, tuple(_RENDERERS))
    records = _read(results)
    for file in files:
        text = _RENDERERS[file.suffix](records)
        output.write_file(file, text)
        count = f"{len(records)} result{'s' * (len(records) > 1)}"
        tell(f"{file} written: {count}, {len(text.encode()) / 1e6:.1f} MB")


def show(results: options.Stored = None) -> None:
    """Show the report of stored results in the terminal."""
    from rich.console import Console

    from mbbench.report.document import shorten
    from mbbench.report.formats import terminal
    from mbbench.report.page import page

    console = Console()
    color = console.is_terminal and not console.no_color
    whole = page(_read(results or [Path(RESULTS)]))
    sections = tuple(
        replace(section, tables=tuple(shorten(table, "`mbbench report` has all rows") for table in section.tables))
        for section in whole.sections
    )
    output.write(terminal.render_page(replace(whole, sections=sections), width=console.width, color=color))


def choose(
    results: options.Stored = None,
    max_p99: Annotated[str | None, typer.Option("--max-p99", metavar="TIME", help="Highest p99 latency: 10ms.")] = None,
    min_top1: Annotated[
        float | None, typer.Option("--min-top1", metavar="PERCENT", help="Lowest top-1 accuracy.")
    ] = None,
    max_rss: Annotated[
        str | None, typer.Option("--max-rss", metavar="SIZE", help="Highest peak memory of the process: 80MB.")
    ] = None,
    max_size: Annotated[
        str | None, typer.Option("--max-size", metavar="SIZE", help="Largest artifact on disk: 5MB.")
    ] = None,
    published: Annotated[
        bool, typer.Option("--published", help="Judge by the published ImageNet top-1 instead of the measured one.")
    ] = False,
    format: options.Format = "table",
) -> None:
    """Pick the cell to use within limits, and say which limit each other cell misses; exit 5 if none fits.

    The pick is the fastest (p99) of the cells whose top-1 cannot be told from the best within the limits.
    """
    from mbbench import store
    from mbbench.analysis import choose as analysis
    from mbbench.report import selection
    from mbbench.report.sections import choice as section

    limits = analysis.Limits(
        max_p99_ms=None if max_p99 is None else seconds_of(max_p99) * 1e3,
        min_top1=None if min_top1 is None else min_top1 / 100,
        max_rss_bytes=None if max_rss is None else bytes_of(max_rss),
        max_size_bytes=None if max_size is None else bytes_of(max_size),
    )
    records = (result for path in results or [Path(RESULTS)] for result in store.read(path, samples=False))
    choice = analysis.choose(selection.newest(records), limits, published=published)
    document = section.document(choice, published=published)
    if format in ("json", "csv"):
        output.write_tables(document.tables, section.record(choice), format)
    else:
        output.write(output.document_text(section.shortened(document), format))
    if choice.pick is None:
        raise RequirementError("no cell is within the limits", "relax one, or measure more cells with `mbbench sweep`")


def verify(
    page: Annotated[Path, typer.Argument(metavar="REPORT.html", help="Page that `mbbench report` wrote.")],
) -> None:
    """Recompute every figure and line of an HTML report from the records it carries; exit 5 if one differs."""
    from mbbench.report.verify import verify

    try:
        text = page.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {page} ({error})", "name an HTML report") from error
    verification = verify(text, str(page))
    for fault in verification.faults:
        tell(fault)
    if verification.faults:
        count = len(verification.faults)
        raise RequirementError(f"{page} contradicts its records in {count} places", "do not rely on it")
    records = f"{verification.records} record{'s' * (verification.records > 1)}"
    output.write(
        f"{page} agrees with its {records}: {verification.figures} figures recomputed, and the page made again\n"
        f"byte for byte: {verification.lines} lines of text, its plots, scripts and styles.\n"
    )


def explain(results: options.Stored = None, format: options.Format = "table") -> None:
    """Explain why a lower precision is faster here, or is not, from results in fp32 and in that precision."""
    from mbbench import store
    from mbbench.analysis import explain as analysis
    from mbbench.models.cost import cost_of
    from mbbench.report.sections import explain as section

    paths = results or [Path(RESULTS)]
    records = [result for path in paths for result in store.read(path, samples=False)]
    explanations = [
        analysis.explain(reference, result, cost_of(result.cell.model)) for reference, result in analysis.pairs(records)
    ]
    if not explanations:
        raise UsageError(
            f"no cell was measured both in fp32 and in another precision: {_names(paths)}",
            "run with --precision fp32,int8",
        )
    output.write_tables(section.tables(explanations), section.record(explanations), format)


def _read(paths: Sequence[Path]) -> list[Result]:
    """Return the results in all files, in order. Raises `UsageError`."""
    from mbbench import store

    results = [result for path in paths for result in store.read(path)]
    if not results:
        raise UsageError(f"no result in {_names(paths)}", "run `mbbench run` first")
    return results


def _names(paths: Sequence[Path]) -> str:
    return " and ".join(map(str, paths))


def _html(results: Sequence[Result]) -> str:
    from mbbench.report.formats import html

    return html.render(results)


def _markdown(results: Sequence[Result]) -> str:
    from mbbench.report.formats import markdown
    from mbbench.report.page import page

    return markdown.render_page(page(results))


def _csv(results: Sequence[Result]) -> str:
    from mbbench.report.formats import csv

    return csv.render(results)


def _json(results: Sequence[Result]) -> str:
    from mbbench.report.formats import json

    return json.render(results)


def _junit(results: Sequence[Result]) -> str:
    from mbbench.report.formats import junit

    return junit.render_results(results)


_RENDERERS: Mapping[str, Callable[[Sequence[Result]], str]] = {
    ".html": _html,
    ".md": _markdown,
    ".csv": _csv,
    ".json": _json,
    ".xml": _junit,
}
