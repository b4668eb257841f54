"""The counts as tables, against golden files; `pytest --golden` writes them anew."""

from collections.abc import Callable

from rich.console import Console

from mbbench.models import paper
from mbbench.models.cost import cost_of
from mbbench.report.document import Table
from mbbench.report.formats import terminal
from mbbench.report.sections import cost
from mbbench.spec import ModelSpec

Golden = Callable[[str, str], None]


def rendered(tables: list[Table]) -> str:
    console = Console(width=80, record=True, quiet=True)
    for table in tables:
        terminal.render_table(console, table)
    return "".join(line.rstrip() + "\n" for line in console.export_text().splitlines())


def test_the_papers_tables(golden: Golden) -> None:
    golden(rendered(cost.paper_tables(paper.reproduce())), "paper.txt")


def test_one_network_layer_by_layer(golden: Golden) -> None:
    spec = ModelSpec(alpha=0.5, resolution=160)
    golden(rendered(cost.tables(spec, cost_of(spec), layers=True)), "cost.txt")


def test_a_network_the_paper_has_not_is_compared_with_nothing() -> None:
    spec = ModelSpec(alpha=0.3, resolution=160)
    assert [table.title for table in cost.tables(spec, cost_of(spec), layers=False)] == [
        "0.3 MobileNet-160, 1000 classes",
        "By layer type",
    ]
