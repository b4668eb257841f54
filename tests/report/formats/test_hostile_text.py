"""Names and messages from records are shown as text by every format, whatever is in them."""

import csv as csv_module
import json as json_module
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from xml.etree import ElementTree

import pytest

from mbbench.errors import UNSAFE_TEXT, visible
from mbbench.report.document import Document, Figure, Page, Section, Table, join
from mbbench.report.formats import csv, html, json, junit, markdown, terminal
from mbbench.report.page import build_page
from mbbench.result import Failure, Result

Make = Callable[..., Result]

NAME = "a\x1b[31mb\u202ec\x9bd\ne|f`g"
SHOWN = r"a\x1b[31mb\u202ec\x9bd\ne|f`g"


def make_hostile(make_result: Make) -> Result:
    result = make_result(backend=NAME)
    return replace(result, failure=Failure(cause=f"{NAME} failed", remedy="=1+1", exit_code=1))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("0.5 MobileNet-128 on openvino, µs — ≤ é 日本", "0.5 MobileNet-128 on openvino, µs — ≤ é 日本"),
        ("a\u00a0b", "a\u00a0b"),
        ("\x00\x1b\t\r\n\x7f\x80\x9f", r"\x00\x1b\t\r\n\x7f\x80\x9f"),
        (
            "\u200b\u200e\u2028\u2029\u202a\u202e\u2066\u2069\ufeff",
            r"\u200b\u200e\u2028\u2029\u202a\u202e\u2066\u2069\ufeff",
        ),
        ("\udce9\uffff", r"\udce9\uffff"),
    ],
)  # fmt: skip
def test_control_characters_become_escapes(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_every_part_of_a_document_is_visible() -> None:
    table = Table(NAME, (NAME,), ((NAME,),), notes=(NAME,))
    assert (table.title, table.columns, table.rows, table.notes) == (SHOWN, (SHOWN,), ((SHOWN,),), (SHOWN,))
    document = Document(NAME, (table,), (NAME,))
    assert (document.headline, document.notes) == (SHOWN, (SHOWN,))
    figure = Figure("id", NAME, NAME, (), {})
    assert (figure.title, figure.alt) == (SHOWN, SHOWN)
    section, page = Section("id", NAME, (NAME,)), Page(NAME, (NAME,), ())
    assert (section.title, section.text, page.title, page.headline) == (SHOWN, (SHOWN,), SHOWN, (SHOWN,))


def test_no_format_writes_control_characters(make_result: Make) -> None:
    results = [make_hostile(make_result), make_result()]
    page = build_page(results)
    texts = {
        "html": html.render(results),
        "markdown": markdown.render_page(page),
        "terminal": terminal.render_page(page, width=200, color=False),
        "csv": csv.render(results),
        "json": json.render(results),
        "junit": junit.render_results(results),
    }
    for name, text in texts.items():
        assert not any(UNSAFE_TEXT.search(line) for line in text.split("\n")), name
    assert f" on {SHOWN}" in texts["terminal"]
    assert SHOWN in texts["csv"]
    assert json_module.loads(texts["json"])[0]["cell"]["backend"] == NAME
    (case, _) = ElementTree.fromstring(texts["junit"]).iter("testcase")
    assert case.attrib["classname"] == SHOWN
    assert html.read_records(texts["html"], "page") == results


def test_json_means_the_same() -> None:
    assert (
        json.render_record({"a\u2028": "\x9b\u202e\x7f\x1b"}) == '{\n  "a\\u2028": "\\u009b\\u202e\\u007f\\u001b"\n}\n'
    )


def test_text_that_a_spreadsheet_would_compute_is_marked_and_numbers_are_not() -> None:
    cells = [
        "=1+1",
        "+cmd|' /C calc'!A0",
        "-2+3",
        "@SUM(A1)",
        "\t=1",
        "-1.2 % [-1.5, -0.9]",
        "-3",
        "+0.4 points",
        "a=b",
        -3,
    ]
    (row,) = csv_module.reader(StringIO(csv.render_rows([cells])))
    assert row == [
        "'=1+1", "'+cmd|' /C calc'!A0", "'-2+3", "'@SUM(A1)", r"\t=1", "-1.2 % [-1.5, -0.9]", "-3", "+0.4 points",
        "a=b", "-3",
    ]  # fmt: skip


def test_a_backend_named_like_a_formula_is_marked_in_csv(make_result: Make) -> None:
    assert ",'=1+1," in csv.render([make_result(backend="=1+1")])


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("[a](http://x.y)", r"[a\](http\://x.y)"),
        ("[a]: x", r"[a\]: x"),
        ("1.2 ms [1.1, 1.3]", "1.2 ms [1.1, 1.3]"),
        ("<b>&lt;b&gt; a & b", r"\<b\>\&lt;b\&gt; a & b"),
        ("_a_ my_net ~b~ www.x.y", r"\_a\_ my_net \~b\~ www\.x.y"),
        ("a|b`c*d\\", r"a\|b\`c\*d" + "\\\\"),
    ],
)
def test_markdown_shows_markup_as_text(text: str, source: str) -> None:
    table = markdown.render_table(Table("t", ("c",), ((text,),)))
    assert table.splitlines()[-1] == f"| {source} |"


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("# a", r"\# a"),
        ("- a", r"\- a"),
        ("12. a", r"12\. a"),
        ("0.5 a", "0.5 a"),
        ("-1.2 %", "-1.2 %"),
        ("---", r"\---"),
    ],
)
def test_a_paragraph_of_markdown_stays_a_paragraph(text: str, source: str) -> None:
    assert markdown.render(Document("h", (), (text,))).splitlines()[-1] == f"- {source}"


def test_a_plot_has_no_tags_but_its_own(make_result: Make) -> None:
    figure = Figure(
        "f", "", "", ({"text": ["<a href='http://x.y'>b</a>\u202e"], "hovertemplate": "%{y}<br>a<extra></extra>"},), {}
    )
    (read,) = json_module.loads(html._figures_json([figure]))
    assert read["traces"][0] == {
        "text": ["&lt;a href='http://x.y'>b&lt;/a>\u202e"], "hovertemplate": "%{y}<br>a<extra></extra>",
    }  # fmt: skip


def test_joined_tables_name_theirs_in_the_first_column() -> None:
    tables = [Table("a", ("q",), (("1",), ("2",))), Table("b", ("q",), (("3",),))]
    joined = join(tables, "Cell")
    assert joined.columns == ("Cell", "q")
    assert joined.rows == (("a", "1"), ("a", "2"), ("b", "3"))
