"""HTML: a report as one file that needs no network, with tables, plots and the records they were made from."""

from __future__ import annotations

import base64
import functools
import gzip
import hashlib
import re
import zlib
from collections.abc import Sequence
from importlib import metadata, resources

import msgspec

from mbbench import cache
from mbbench.errors import UsageError
from mbbench.report.document import Figure
from mbbench.report.formats.json import escape_json
from mbbench.report.formats.records import pack, unpack
from mbbench.report.page import build_page
from mbbench.result import Result

_MIN_FILTER_ROWS = 20  # a section whose tables have at least this many rows gets a filter
_IN_MARKUP = str.maketrans("<>&", ",.:")  # replaces the digits of base 85 that are special in HTML
_FROM_MARKUP = str.maketrans(",.:", "<>&")
_MARKUP = re.compile("<(?!(?:br|/?extra)>)")  # Plotly draws other tags too, such as links, but no figure has any
_LEFT_OUT = re.compile(r'<meta name="mbbench-results-left-out" content="(\d+)">')
_WRITER = re.compile(r'<meta name="generator" content="mbbench ([^"]*)">')


def render(results: Sequence[Result], version: str | None = None, left_out: int = 0) -> str:
    """Return the page of `results`: the same bytes for the same results and versions of mbbench and Plotly.

    `left_out`: how many other results the page says it leaves out. `version` is stated as the version of mbbench that
    wrote the page (default: the installed one). Text in the results is never markup: the template escapes it, and the
    content security policy allows only the page's two scripts, by hash, and loads nothing.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mbbench", "report/formats"), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    script = _asset("page.js")
    plotly, plotly_hash = _plotly()
    page = build_page(results, left_out)
    columns, planes = pack(results)
    figures = [figure for section in page.sections for figure in section.figures]
    return environment.get_template("page.html.jinja").render(
        page=page,
        left_out=left_out,
        version=version or metadata.version("mbbench"),
        hashes=f"'sha256-{_sha256(script)}' 'sha256-{plotly_hash}'",
        style=_asset("page.css"),
        script=script,
        plotly=plotly,
        figures=_figures_json(figures),
        records=_compress(columns),
        samples=_compress(planes),
        min_filter_rows=_MIN_FILTER_ROWS,
    )


def read_records(text: str, source: str) -> list[Result]:
    """Return the results that the page `text` was made from. Raises `UsageError` if there are none, or broken ones."""
    try:
        return unpack(read_embedded(text, "records"), read_embedded(text, "samples"))
    except LookupError:
        raise UsageError(
            f"{source} is not a report of mbbench", "name a file that `mbbench report -o FILE.html` wrote"
        ) from None
    except (ValueError, OSError, EOFError, zlib.error, RecursionError) as error:
        raise UsageError(f"the records in {source} cannot be read: {error}", "write the report again") from error


def read_embedded(text: str, id: str) -> bytes:
    """Return the data embedded in a page under `id`.

    Raises `LookupError` if it is missing, and `ValueError`, `OSError`, `EOFError` or `zlib.error` if it is damaged.
    """
    element = re.search(rf'<script type="text/plain" id="{id}">([^<]*)</script>', text)
    if element is None:
        raise LookupError(id)
    return cache.unpack(base64.b85decode(element[1].translate(_FROM_MARKUP)))


def writer_version(text: str) -> str:
    """Return the version of mbbench that wrote a page, or an empty string."""
    element = _WRITER.search(text)
    return "" if element is None else element[1]


def results_left_out(text: str) -> int:
    """Return how many results a page says it leaves out."""
    element = _LEFT_OUT.search(text)
    return 0 if element is None else int(element[1])


def _asset(name: str) -> str:
    return resources.files("mbbench.report.formats").joinpath(name).read_text()


@functools.cache
def _plotly() -> tuple[str, str]:
    """Return Plotly's script, compressed, and the hash of its plain text."""
    from plotly.offline import get_plotlyjs

    script: str = get_plotlyjs()
    return _compress(script.encode()), _sha256(script)


def _compress(content: bytes) -> str:
    """Return `content` compressed, in base 85, which is 6 % shorter than base 64."""
    return base64.b85encode(gzip.compress(content, 9, mtime=0)).decode().translate(_IN_MARKUP)


def _sha256(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _figures_json(figures: Sequence[Figure]) -> str:
    """Return JSON that is safe inside a script element: it cannot end the element or begin another."""
    rows = [{"id": figure.id, "traces": figure.traces, "layout": figure.layout} for figure in figures]
    text = _MARKUP.sub("&lt;", escape_json(msgspec.json.encode(rows).decode()))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
