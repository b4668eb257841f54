"""A report as one HTML file that opens without a network: tables, plots, and the records they were made of."""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
import zlib
from collections.abc import Sequence
from functools import cache
from importlib import metadata, resources

import msgspec

from mbbench.errors import UsageError
from mbbench.report.document import Figure
from mbbench.report.formats.records import pack, unpack
from mbbench.report.page import page
from mbbench.result import Result

_FILTERED = 20  # rows from which a section's tables get a filter
_IN_MARKUP = str.maketrans("<>&", ",.:")  # of base 85's digits those that would end an element, or look like it
_FROM_MARKUP = str.maketrans(",.:", "<>&")
_MADE_BY = re.compile(r'<meta name="generator" content="mbbench ([^"]*)">')


def render(results: Sequence[Result], version: str | None = None) -> str:
    """The same bytes for the same results, versions of mbbench and of Plotly; `version` is mbbench's unless given.

    No text of the results is markup: the template escapes it, and a content security policy runs no script but the two
    whose hashes it names, and loads nothing.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mbbench", "report/formats"), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    script = _asset("page.js")
    plotly, plotly_hash = _plotly()
    content = page(results)
    columns, planes = pack(results)
    figures = [figure for section in content.sections for figure in section.figures]
    return environment.get_template("page.html.jinja").render(
        page=content,
        version=version or metadata.version("mbbench"),
        hashes=f"'sha256-{_hash(script)}' 'sha256-{plotly_hash}'",
        style=_asset("page.css"),
        script=script,
        plotly=plotly,
        figures=_json(figures),
        records=_packed(columns),
        samples=_packed(planes),
        filtered=_FILTERED,
    )


def records(text: str, source: str) -> list[Result]:
    """The results that a report was made of; raises `UsageError`."""
    try:
        return unpack(unpacked(text, "records"), unpacked(text, "samples"))
    except LookupError:
        raise UsageError(
            f"{source} is no report of mbbench", "name a file that `mbbench report -o FILE.html` wrote"
        ) from None
    except (ValueError, OSError, EOFError, zlib.error) as error:
        raise UsageError(f"the records in {source} cannot be read: {error}", "write the report again") from error


def unpacked(text: str, id: str) -> bytes:
    """What a report carries under `id`; raises `LookupError`, or what comes of data that is damaged."""
    found = re.search(rf'<script type="text/plain" id="{id}">([^<]*)</script>', text)
    if found is None:
        raise LookupError(id)
    return gzip.decompress(base64.b85decode(found[1].translate(_FROM_MARKUP)))


def made_by(text: str) -> str:
    """The version of mbbench that wrote a report."""
    found = _MADE_BY.search(text)
    return "" if found is None else found[1]


def _asset(name: str) -> str:
    return resources.files("mbbench.report.formats").joinpath(name).read_text()


@cache
def _plotly() -> tuple[str, str]:
    """Plotly's script, packed, and the hash of what it is unpacked."""
    from plotly.offline import get_plotlyjs

    script: str = get_plotlyjs()
    return _packed(script.encode()), _hash(script)


def _packed(content: bytes) -> str:
    """Compressed, in base 85: 6 % less than base 64, of which a large page consists."""
    return base64.b85encode(gzip.compress(content, 9, mtime=0)).decode().translate(_IN_MARKUP)


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _json(figures: Sequence[Figure]) -> str:
    """JSON that may stand in a script element: nothing in it can end the element or begin another."""
    rows = [{"id": figure.id, "traces": figure.traces, "layout": figure.layout} for figure in figures]
    return msgspec.json.encode(rows).decode().replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
