"""`mbbench report`, `show` and `verify`: stored results to pages, and pages back to what they rest on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from mbbench import store
from mbbench.errors import ParityError, UsageError
from mbbench.progress import tell
from mbbench.result import Result


def report(sources: Sequence[Path], targets: Sequence[Path]) -> None:
    """Write the results in `sources` to each of `targets`, in the format its suffix names."""
    for target in targets:
        if target.suffix not in FORMATS:
            raise UsageError(f"{target} has no format", f"end it with one of {', '.join(FORMATS)}")
    results = _read(sources)
    for target in targets:
        text = FORMATS[target.suffix](results)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        except OSError as error:
            raise UsageError(f"cannot write {target} ({error.strerror})", "choose another file with -o") from error
        count = f"{len(results)} result{'s' * (len(results) > 1)}"
        tell(f"{target} written: {count}, {len(text.encode()) / 1e6:.1f} MB")


def show(sources: Sequence[Path]) -> None:
    from mbbench.report import content, terminal
    from mbbench.report.page import page

    console = Console()
    color = console.is_terminal and not console.no_color
    whole = page(_read(sources))
    sections = []
    for section in whole.sections:
        tables = (content.shortened(table, "`mbbench report` has them all") for table in section.tables)
        sections.append(replace(section, tables=tuple(tables)))
    shown = replace(whole, sections=tuple(sections))
    sys.stdout.write(terminal.render_page(shown, width=console.width, color=color))


def verify(source: Path) -> None:
    """Say what was recomputed; raises `ParityError` with the first of what does not agree."""
    from mbbench import verify as verifying

    try:
        text = source.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {source} ({error})", "name an HTML report") from error
    found = verifying.verify(text, str(source))
    for fault in found.faults:
        tell(fault)
    if found.faults:
        count = len(found.faults)
        raise ParityError(f"{count} of what {source} says does not follow from its records", "do not rely on it")
    records = f"{found.records} record{'s' * (found.records > 1)}"
    print(f"{source} agrees with its {records}: {found.figures} figures recomputed, and the page made again")
    print(f"byte for byte, {found.lines} lines of text, its plots, scripts and styles.")


def _read(sources: Sequence[Path]) -> list[Result]:
    results = [result for source in sources for result in store.read(source)]
    if not results:
        raise UsageError(f"{' and '.join(map(str, sources))} holds no result", "run `mbbench run` first")
    return results


def _html(results: Sequence[Result]) -> str:
    from mbbench.report import html

    return html.render(results)


def _markdown(results: Sequence[Result]) -> str:
    from mbbench.report import markdown
    from mbbench.report.page import page

    return markdown.render_page(page(results))


def _csv(results: Sequence[Result]) -> str:
    from mbbench.report import csv

    return csv.render(results)


def _json(results: Sequence[Result]) -> str:
    from mbbench.report import json

    return json.render(results)


def _junit(results: Sequence[Result]) -> str:
    from mbbench.report import junit

    return junit.render_results(results)


FORMATS: Mapping[str, Callable[[Sequence[Result]], str]] = {
    ".html": _html,
    ".md": _markdown,
    ".csv": _csv,
    ".json": _json,
    ".xml": _junit,
}
