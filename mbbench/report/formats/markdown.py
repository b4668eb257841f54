"""GitHub-flavored Markdown, for pull requests."""

from __future__ import annotations

from collections.abc import Sequence

from mbbench.report.document import Document, Page, Table


def render(document: Document) -> str:
    """Return `document` as Markdown."""
    blocks = [f"**{_escape(document.headline)}**", *map(render_table, document.tables)]
    if document.notes:
        blocks.append("\n".join(f"- {_escape(note)}" for note in document.notes))
    return "\n\n".join(blocks) + "\n"


def render_page(page: Page) -> str:
    """Return `page` as Markdown, with the text alternatives of its plots."""
    blocks = [f"# {_escape(page.title)}", *(f"**{_escape(sentence)}**" for sentence in page.headline)]
    for section in page.sections:
        blocks += [f"## {_escape(section.title)}", *map(_escape, section.text)]
        blocks += [f"*{_escape(figure.alt)}*" for figure in section.figures]
        blocks += map(render_table, section.tables)
    return "\n\n".join(blocks) + "\n"


def render_table(table: Table) -> str:
    """Return `table` as Markdown without a newline at the end."""
    rule = ["---", *("---:" if table.numeric else "---" for _ in table.columns[1:])]
    lines = [f"### {_escape(table.title)}", "", _row(table.columns), _row(rule), *map(_row, table.rows)]
    for note in table.notes:
        lines += ["", _escape(note)]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(_escape(cell) for cell in cells)} |"


def _escape(text: str) -> str:
    for character in "\\|*<>`":
        text = text.replace(character, f"\\{character}")
    return text
