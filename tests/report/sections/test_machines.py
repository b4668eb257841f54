from collections.abc import Callable
from dataclasses import replace

from mbbench.report.page import build_page
from mbbench.report.sections import machines
from mbbench.result import Result
from mbbench.spec import ModelSpec

Make = Callable[..., Result]


def on(result: Result, cpu: str) -> Result:
    return replace(result, machine=replace(result.machine, cpu=cpu))


def test_cells_of_several_machines_stand_next_to_each_other(make_result: Make) -> None:
    small, large = make_result(ModelSpec(alpha=0.25, classes=10)), make_result(ModelSpec(alpha=0.5, classes=10))
    slower = on(make_result(ModelSpec(alpha=0.5, classes=10), scale=2.0), "B")
    results = [on(small, "A"), on(large, "A"), slower]
    section = machines.section(results)
    assert section is not None
    (table,) = section.tables
    assert table.columns == ("Cell", "A", "B", "ratio")
    assert table.rows == (("0.5 MobileNet-224 on openvino", "0.504 ms", "1.01 ms", "2.00"),)
    assert build_page(results).sections[0].id == "machines"
    assert build_page(results).title == "2 networks on openvino, 2 machines"


def test_a_single_machine_or_no_common_cell_has_no_section(make_result: Make) -> None:
    assert machines.section([make_result()]) is None
    other = on(make_result(ModelSpec(alpha=0.25, classes=10)), "B")
    assert machines.section([make_result(), other]) is None
