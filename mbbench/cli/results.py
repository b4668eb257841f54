"""`mbbench report`, `show`, `choose`, `verify` and `explain`: the commands that read stored results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mbbench.cli import limits, options, output
from mbbench.cli.options import DEFAULT_RESULTS
from mbbench.cli.progress import print_status
from mbbench.errors import RequirementError, UsageError

if TYPE_CHECKING:
    from mbbench.report.verify import Verification
    from mbbench.result import Result

_PAGES = (".html", ".md")
_MAX_RESULTS = 500  # on a page: a browser draws more of them too slowly


def report(
    results: Annotated[list[Path], typer.Argument(metavar="RESULTS", help="Result files written by `mbbench run`.")],
    files: Annotated[
        list[Path],
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Report file to write: .html, .md, .csv, .json or .xml (JUnit). Can be repeated.",
        ),
    ],
) -> None:
    """Write a report on stored results: self-contained HTML, Markdown, CSV, JSON or JUnit.

    If a cell has several results, the most precise one with the newest versions is used.
    """
    from mbbench.report import units

    @cache  # several files are often of one kind
    def read(page: bool) -> tuple[list[Result], int]:
        return _read_newest(results) if page else (_read(results), 0)

    for file in files:
        output.require_suffix(file, tuple(_RENDERERS))
    for file in files:
        records, left_out = read(file.suffix in _PAGES)
        text = _RENDERERS[file.suffix](records, left_out)
        output.write_file(file, text)
        count = output.count_text(len(records), "result") + (f" ({left_out} left out)" if left_out else "")
        print_status(f"{file} written: {count}, {units.megabytes(len(text.encode()))}")


def show(results: options.StoredResults = None) -> None:
    """Show the report on stored results in the terminal."""
    from mbbench.report.document import shorten
    from mbbench.report.formats import terminal
    from mbbench.report.page import build_page

    whole = build_page(*_read_newest(_paths(results)))
    sections = tuple(
        replace(section, tables=tuple(shorten(table, "`mbbench report` has all rows") for table in section.tables))
        for section in whole.sections
    )
    page = replace(whole, sections=sections)
    output.write(terminal.render_page(page, width=output.text_width(), color=output.has_color()))


def choose(
    results: options.StoredResults = None,
    max_p99: limits.MaxP99 = None,
    min_top1: limits.MinTop1 = None,
    max_rss: limits.MaxRss = None,
    max_added_rss: limits.MaxAddedRss = None,
    max_size: limits.MaxSize = None,
    published: Annotated[
        bool, typer.Option("--published", help="Use the published ImageNet top-1 instead of the measured one.")
    ] = False,
    format: options.Format = "table",
) -> None:
    """Pick the best cell within limits, and name the limit that each other cell misses.

    Of the cells with top-1 statistically indistinguishable from the best, it picks the lowest p99.
    Exit 5 if no cell is within the limits.
    """
    from mbbench.analysis import choose as analysis
    from mbbench.analysis.pairing import representatives
    from mbbench.report.sections import choice as section

    allowed = limits.parse_limits(max_p99, min_top1, max_rss, max_added_rss, max_size)
    records = _read_without_samples(_paths(results))
    choice = analysis.choose(representatives(records), allowed, published=published)
    document = section.choice_document(choice, published=published)
    if format in ("json", "csv"):
        output.write_tables(document.tables, section.record(choice), format)
    else:
        output.write(output.document_text(section.shortened(document), format))
    if choice.pick is None:
        raise RequirementError(
            "no cell is within the limits", "relax a limit, or measure more cells with `mbbench sweep`"
        )


def verify(
    page: Annotated[Path, typer.Argument(metavar="REPORT.html", help="Report written by `mbbench report`.")],
) -> None:
    """Recompute an HTML report from its embedded records; exit 5 if anything differs."""
    from mbbench.report.verify import verify

    verification = verify(_read_page(page), str(page))
    for fault in verification.faults:
        print_status(fault)
    if verification.faults:
        count = output.count_text(len(verification.faults), "place")
        raise RequirementError(f"{page} contradicts its records in {count}", "do not rely on it")
    output.write_paragraph(_agreement_text(page, verification))


def explain(results: options.StoredResults = None, format: options.Format = "table") -> None:
    """Explain why a lower precision is faster than fp32 on this machine, or why it is not.

    The results must include a cell in fp32 and the same cell in a lower precision.
    """
    from mbbench.analysis import explain as analysis
    from mbbench.analysis.pairing import fp32_pairs, representatives
    from mbbench.models.cost import cost_of
    from mbbench.report.sections import explain as section
    from mbbench.report.selection import supported

    paths = _paths(results)
    measured = supported(representatives(_read_without_samples(paths)))
    explanations = [
        analysis.explain(reference, result, cost_of(result.cell.model)) for result, reference in fp32_pairs(measured)
    ]
    if not explanations:
        raise UsageError(
            f"no cell was measured both in fp32 and in another precision: {_names(paths)}",
            "run `mbbench run --precision fp32,int8` first",
        )
    output.write_tables(section.tables(explanations), section.record(explanations), format)


def _paths(results: Sequence[Path] | None) -> Sequence[Path]:
    return results or [Path(DEFAULT_RESULTS)]


def _read(paths: Sequence[Path]) -> list[Result]:
    """Return the results in all files, in order. Raises `UsageError` if there is none."""
    from mbbench import store

    results = [result for path in paths for result in store.read(path)]
    if not results:
        raise UsageError(f"no result in {_names(paths)}", "run `mbbench run` first")
    return results


def _read_newest(paths: Sequence[Path]) -> tuple[list[Result], int]:
    """Return the results for a page, and how many are left out: the newest cells, if there are too many results."""
    from mbbench import store
    from mbbench.analysis.pairing import representatives

    stored = list(_read_without_samples(paths))
    if len(stored) <= _MAX_RESULTS:
        return _read(paths), 0
    newest = sorted(representatives(stored), key=lambda result: result.time_utc)[-_MAX_RESULTS:]
    ids = {result.id for result in newest}
    results = {result.id: result for path in paths for result in store.read(path, ids=ids)}
    return list(results.values()), len(stored) - len(results)


def _read_without_samples(paths: Sequence[Path]) -> Iterator[Result]:
    """Yield the results in all files, in order, without their latency samples. Raises `UsageError`."""
    from mbbench import store

    return (result for path in paths for result in store.read(path, samples=False))


def _read_page(path: Path) -> str:
    """Return the text of an HTML report. Raises `UsageError` if it cannot be read."""
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise UsageError(f"cannot read {path} ({reason})", "name an HTML report") from error


def _names(paths: Sequence[Path]) -> str:
    return " and ".join(map(str, paths))


def _agreement_text(page: Path, verification: Verification) -> str:
    records = output.count_text(verification.records, "record")
    return (
        f"{page} agrees with its {records}: {verification.figures} figures recomputed, and the page rebuilt byte for"
        f" byte ({verification.lines} lines of text, its plots, scripts and styles)."
    )


def _html(results: Sequence[Result], left_out: int) -> str:
    from mbbench.report.formats import html

    return html.render(results, left_out=left_out)


def _markdown(results: Sequence[Result], left_out: int) -> str:
    from mbbench.report.formats import markdown
    from mbbench.report.page import build_page

    return markdown.render_page(build_page(results, left_out))


def _csv(results: Sequence[Result], _: int) -> str:
    from mbbench.report.formats import csv

    return csv.render(results)


def _json(results: Sequence[Result], _: int) -> str:
    from mbbench.report.formats import json

    return json.render(results)


def _junit(results: Sequence[Result], _: int) -> str:
    from mbbench.report.formats import junit

    return junit.render_results(results)


_RENDERERS: Mapping[str, Callable[[Sequence[Result], int], str]] = {
    ".html": _html,
    ".md": _markdown,
    ".csv": _csv,
    ".json": _json,
    ".xml": _junit,
}
