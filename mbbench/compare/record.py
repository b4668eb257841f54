"""The record of a gate: the verdicts of every cell, and everything they are based on.

Schema history:
    1  first release
"""

from __future__ import annotations

from dataclasses import dataclass

from mbbench.compare import gate
from mbbench.compare.gate import Readings, Verdict
from mbbench.compare.noise import Noise
from mbbench.doctor import Check
from mbbench.machine import Machine
from mbbench.result import Failure
from mbbench.spec import Cell

SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CellVerdict:
    """The verdicts of one cell.

    `rounds`: empty if both artifacts are the same file, two if the first round exceeded a limit. `noise`: what `mbbench
    calibrate` measured on this machine, if it was run. `failure`: the reason that the cell has no verdicts.
    """

    cell: Cell
    baseline_sha256: str
    candidate_sha256: str
    rounds: tuple[Readings, ...]
    verdicts: tuple[Verdict, ...]
    noise: Noise | None
    failure: Failure | None = None

    @property
    def outcome(self) -> gate.Outcome:
        if self.failure is not None:
            return "error"
        return gate.worst_outcome(verdict.outcome for verdict in self.verdicts)


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRecord:
    """All cells of a gate, and the machine, versions and conditions under which they were measured."""

    schema: int
    time_utc: str
    machine: Machine
    versions: dict[str, str]
    conditions: tuple[Check, ...]
    cells: tuple[CellVerdict, ...]

    @property
    def outcome(self) -> gate.Outcome:
        return gate.worst_outcome(cell.outcome for cell in self.cells)
