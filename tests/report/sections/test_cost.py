"""Tables of a network's cost, compared with golden files."""

from collections.abc import Callable

from mbbench.models import paper
from mbbench.models.cost import cost_of
from mbbench.report.document import Table
from mbbench.report.formats import terminal
from mbbench.report.sections import cost
from mbbench.spec import ModelSpec

Golden = Callable[[str, str], None]


def rendered(tables: list[Table]) -> str:
    return terminal.render_tables(tables, width=80, color=False)


def test_the_papers_tables(golden: Golden) -> None:
    golden(rendered(cost.paper_tables(paper.reproduce())), "paper.txt")


def test_the_cost_of_a_network_layer_by_layer(golden: Golden) -> None:
    spec = ModelSpec(alpha=0.5, resolution=160)
    golden(rendered(cost.tables(spec, cost_of(spec), layers=True)), "cost.txt")


def test_a_network_that_is_not_in_the_paper_is_not_compared() -> None:
    spec = ModelSpec(alpha=0.3, resolution=160)
    assert [table.title for table in cost.tables(spec, cost_of(spec), layers=False)] == [
        "0.3 MobileNet-160, 1000 classes",
        "By layer type",
    ]
