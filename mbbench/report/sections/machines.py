"""The same cells on several machines, next to each other."""

from __future__ import annotations

from collections.abc import Sequence

from mbbench.report import units
from mbbench.report.document import Section, Table
from mbbench.report.names import namer
from mbbench.report.selection import measurements
from mbbench.result import Result, Setup


def section(results: Sequence[Result]) -> Section | None:
    """Return the median latency of every cell measured on two or more machines, or None if there is none.

    Ratios are to the first machine; below 1 is faster. Test images may differ: latency does not depend on them.
    """
    machines = {result.machine.id: result for result in results}
    cells: dict[Setup, dict[str, Result]] = {}
    for measurement in measurements(results):
        result = measurement.result
        cells.setdefault(result.setup.same_but(machine="", data=None), {})[result.machine.id] = result
    shared = [on_machine for on_machine in cells.values() if len(on_machine) > 1]
    if not shared:
        return None
    first, *others = machines
    name = namer([next(iter(on_machine.values())) for on_machine in shared])
    columns = ["Cell", machines[first].machine.cpu]
    for machine in others:
        columns += [machines[machine].machine.cpu, "ratio"]
    rows = []
    for on_machine in shared:
        reference = on_machine[first].median_ms() if first in on_machine else None
        row = [name(next(iter(on_machine.values()))), units.milliseconds(reference)]
        for machine in others:
            median_ms = on_machine[machine].median_ms() if machine in on_machine else None
            ratio = units.MISSING if median_ms is None or not reference else f"{median_ms / reference:.2f}"
            row += [units.milliseconds(median_ms), ratio]
        rows.append(tuple(row))
    notes = (f"Median latency. Ratio: to {machines[first].machine.cpu}; below 1 is faster.",)
    table = Table("Machine against machine", tuple(columns), tuple(rows), notes=notes)
    return Section("machines", "Machines compared", (), (table,))
