"""The output of `mbbench backends` and `mbbench doctor`, as tables."""

from __future__ import annotations

from collections.abc import Sequence

from mbbench.doctor import Check
from mbbench.machine import Machine
from mbbench.registry import Description
from mbbench.report import units
from mbbench.report.document import Table


def backend_table(descriptions: Sequence[Description]) -> Table:
    """Return one row for each device of each backend; backends that cannot start get a row and a note."""
    rows: list[tuple[str, ...]] = []
    for backend in descriptions:
        versions = ", ".join(f"{package} {version}" for package, version in backend.versions.items()) or units.MISSING
        if backend.error is not None:
            rows.append((backend.name, versions, "cannot start", ""))
        for device, chip in backend.devices.items():
            rows.append((backend.name, versions, f"{device}: {chip}", " ".join(backend.precisions[device])))
    reasons = tuple(f"{backend.name} cannot start: {backend.error}." for backend in descriptions if backend.error)
    return Table("Backends", ("Name", "Version", "Device", "Precisions"), tuple(rows), numeric=False, notes=reasons)


def check_table(machine: Machine, checks: Sequence[Check]) -> Table:
    """Return one row for each check of the machine, and a note on the number of warnings."""
    rows = tuple((check.name, check.status, check.found, check.remedy or "") for check in checks)
    warnings = sum(check.status == "warn" for check in checks)
    note = f"{warnings} warning{'s' * (warnings > 1)}; nothing was changed." if warnings else "Fit for measuring."
    columns = ("Check", "Status", "Finding", "Remedy")
    return Table(machine.summary, columns, rows, numeric=False, notes=(note,))
