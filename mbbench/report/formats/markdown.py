"""GitHub-flavored Markdown, for pull requests."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mbbench.report.document import Document, Page, Table

# Characters that are always special, or only here: the end of a link's text, an underscore at the edge of a word, an
# entity, and of bare addresses the part that makes them a link.
_SPECIAL = re.compile(r"[\\|*<>`~]|\](?=[(\[:])|(?<!\w)_|_(?!\w)|&(?=#?\w+;)|:(?=//)|(?<=www)\.", re.IGNORECASE)
_BLOCK = re.compile(r"\d+(?=[.)]\s)|(?=#{1,6}\s|[+-]\s|---)")  # what begins a heading, a list or a rule


def render(document: Document) -> str:
    """Return `document` as Markdown."""
    blocks = [f"**{_escape(document.headline)}**", *map(render_table, document.tables)]
    if document.notes:
        blocks.append("\n".join(f"- {_paragraph(note)}" for note in document.notes))
    return "\n\n".join(blocks) + "\n"


def render_page(page: Page) -> str:
    """Return `page` as Markdown, with the text alternatives of its plots."""
    blocks = [f"# {_escape(page.title)}", *(f"**{_escape(sentence)}**" for sentence in page.headline)]
    for section in page.sections:
        blocks += [f"## {_escape(section.title)}", *map(_paragraph, section.text)]
        blocks += [f"*{_escape(figure.alt)}*" for figure in section.figures]
        blocks += map(render_table, section.tables)
    return "\n\n".join(blocks) + "\n"


def render_table(table: Table) -> str:
    """Return `table` as Markdown without a newline at the end."""
    rule = ["---", *("---:" if table.numeric else "---" for _ in table.columns[1:])]
    lines = [f"### {_escape(table.title)}", "", _row(table.columns), _row(rule), *map(_row, table.rows)]
    for note in table.notes:
        lines += ["", _paragraph(note)]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(_escape(cell) for cell in cells)} |"


def _escape(text: str) -> str:
    """Return text that Markdown shows as it is: no markup, no HTML, no link."""
    return _SPECIAL.sub(r"\\\g<0>", text)


def _paragraph(text: str) -> str:
    """Return text that is no heading, list or rule, whatever it begins with."""
    text = _escape(text)
    start = _BLOCK.match(text)
    return text if start is None else f"{text[: start.end()]}\\{text[start.end() :]}"
