"""Tables and paragraphs fit a width without cutting a word, a figure or a name."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from mbbench.report.document import Table
from mbbench.report.formats import layout, terminal

WORD = st.text(
    st.characters(whitelist_categories=["Lu", "Ll", "Nd", "Lo"]) | st.sampled_from("-.,()±"), min_size=1, max_size=18
)
FIGURE = st.sampled_from(
    ["134 MB", "0.457 ms", "99.7 % [98.4, 100.0]", "—", "15466 M", "27.2x", "-0.28 [-1.22, +0.66]", ""]
)
TEXT = st.lists(WORD, max_size=6).map(" ".join)


@st.composite
def tables(draw: st.DrawFn) -> Table:
    count, numeric = draw(st.integers(1, 9)), draw(st.booleans())
    cell = FIGURE | TEXT if numeric else TEXT
    row = st.tuples(TEXT, *[cell] * (count - 1))
    return Table(
        title=draw(TEXT),
        columns=draw(st.tuples(*[TEXT] * count)),
        rows=tuple(draw(st.lists(row, max_size=4))),
        numeric=numeric,
        header=count > 2 or draw(st.booleans()),
        notes=tuple(draw(st.lists(TEXT, max_size=2))),
    )


def words(table: Table) -> Counter[str]:
    lines = (table.columns, *table.rows) if table.header else table.rows
    return Counter(word for text in (table.title, *table.notes, *sum(lines, ())) for word in text.split())


@settings(max_examples=100, deadline=None)
@given(table=tables(), width=st.integers(20, 200))
def test_every_word_appears_whole_at_any_width(table: Table, width: int) -> None:
    lines = terminal.render_tables([table], width=width, color=False).splitlines()
    shown = Counter(word.removesuffix(":") for line in lines for word in line.split())
    assert not words(table) - shown
    longest = max(map(cell_len, words(table)), default=0)
    assert max(map(cell_len, lines)) <= max(width, longest + 8)  # a longer word, with its unit and indented


@settings(max_examples=30, deadline=None)
@given(table=tables())
def test_without_a_limit_a_row_is_a_line(table: Table) -> None:
    lines = terminal.render_tables([table], width=None, color=False).splitlines()
    assert len(lines) == 2 + 2 * table.header + len(table.rows) + len(table.notes)
    for row, line in zip(table.rows, lines[2 + 2 * table.header :], strict=False):
        assert " ".join(line.split()) == " ".join(" ".join(row).split())


@pytest.mark.parametrize(
    "figure", ["126 MB", "0.457 ms", "(99.7 %,", "[98.4, 100.0]),", "569 M", "± 2.7 %,", "15 s;", "2145 images/s"]
)
def test_a_figure_stays_with_its_unit(figure: str) -> None:
    assert layout.wrap(f"first inference {figure} again", len(f"first inference {figure}") - 1) == [
        "first inference",
        f"{figure} again",
    ]


def test_a_number_may_be_parted_from_a_word() -> None:
    assert layout.wrap("all 24 samples", 6) == ["all 24", "samples"]


WIDE = Table(
    "Speed",
    ("Cell", "Median, ms", "Peak memory", "Agreement", "Size"),
    (
        ("1.0 MobileNet-224", "0.457 ms", "134 MB", "100.0 %", "3.28 MB"),
        ("VGG16-224", "52.4 ms", "1202 MB", "—", "537 MB"),
    ),
)


def rendered(table: Table, width: int | None) -> str:
    return terminal.render_tables([table], width=width, color=False)


def test_a_table_that_fits_is_as_wide_as_its_text() -> None:
    natural = """
Speed
Cell                Median, ms   Peak memory   Agreement      Size
──────────────────────────────────────────────────────────────────
1.0 MobileNet-224     0.457 ms        134 MB     100.0 %   3.28 MB
VGG16-224              52.4 ms       1202 MB           —    537 MB
"""
    assert rendered(WIDE, None) == rendered(WIDE, 200) == rendered(WIDE, 66) == natural


def test_headers_wrap_before_figures_and_stand_at_the_bottom() -> None:
    text = """
Speed
                     Median,      Peak
Cell                      ms    memory   Agreement      Size
────────────────────────────────────────────────────────────
1.0 MobileNet-224   0.457 ms    134 MB     100.0 %   3.28 MB
VGG16-224            52.4 ms   1202 MB           —    537 MB
"""
    assert rendered(WIDE, 60) == text


def test_a_table_that_is_too_wide_is_split() -> None:
    text = """
Speed
                                      Peak
Cell                Median, ms      memory
──────────────────────────────────────────
1.0 MobileNet-224     0.457 ms      134 MB
VGG16-224              52.4 ms     1202 MB

Cell                Agreement      Size
───────────────────────────────────────
1.0 MobileNet-224     100.0 %   3.28 MB
VGG16-224                   —    537 MB
"""
    assert rendered(WIDE, 42) == text


def test_a_column_whose_name_is_repeated_stays_with_the_column_before_it() -> None:
    columns = ("Quantity", "MobileNet", "VGG16", "ratio", "GoogLeNet", "ratio")
    table = Table("Against", columns, (("Mult-Adds", "48.7 M", "5131 M", "105x", "489 M", "10.0x"),))
    text = """
Against
Quantity    MobileNet    VGG16   ratio
──────────────────────────────────────
Mult-Adds      48.7 M   5131 M    105x

Quantity    GoogLeNet   ratio
─────────────────────────────
Mult-Adds       489 M   10.0x
"""
    assert rendered(table, 57) == rendered(table, 45) == text
    assert rendered(table, 58).splitlines()[2] == "Quantity    MobileNet    VGG16   ratio   GoogLeNet   ratio"


def test_a_table_that_is_much_too_wide_is_turned() -> None:
    aligned = """
Speed
Cell:        1.0 MobileNet-224
Median, ms:  0.457 ms
Peak memory: 134 MB
Agreement:   100.0 %
Size:        3.28 MB

Cell:        VGG16-224
Median, ms:  52.4 ms
Peak memory: 1202 MB
Agreement:   —
Size:        537 MB
"""
    assert rendered(WIDE, 30) == aligned
    assert rendered(WIDE, 24).splitlines()[2:6] == [
        "Cell: 1.0", "  MobileNet-224", "Median, ms: 0.457 ms", "Peak memory: 134 MB",
    ]  # fmt: skip


def test_a_table_of_text_is_turned_if_its_rows_would_be_tall() -> None:
    rows = (("A", " ".join(["virtual machine"] * 8)), ("B", "none"))
    table = Table("Machines", ("Machine", "Limits"), rows, numeric=False)
    assert rendered(table, 41).splitlines()[2:6] == [
        "Machine   Limits",
        "─────────────────────────────────────────",
        "A         virtual machine virtual machine",
        "          virtual machine virtual machine",
    ]
    block = ["Limits:  virtual machine", *["         virtual machine"] * 7]
    assert rendered(table, 30).splitlines()[2:] == ["Machine: A", *block, "", "Machine: B", "Limits:  none"]


def test_without_a_header_the_name_stands_above_its_value() -> None:
    table = Table("Cost", ("", ""), (("Accuracy", "top-1 99.7 % [98.4, 100.0]"),), numeric=False, header=False)
    assert rendered(table, 40) == "\nCost\nAccuracy   top-1 99.7 % [98.4, 100.0]\n"
    assert rendered(table, 20) == "\nCost\nAccuracy\n  top-1 99.7 %\n  [98.4, 100.0]\n"
