"""What `mbbench run --plan` shows: the cells of a run and how long they take."""

from __future__ import annotations

from mbbench.report.document import Table
from mbbench.spec import RunSpec

_START_S = 1.0  # of a child process, approximately
_LONGEST = 5  # times a scenario's own seconds


def table(spec: RunSpec) -> Table:
    """Return the cells of a run, with the least and the most time that each can take by its settings."""
    settings = spec.settings
    rest = settings.throughput_s + (settings.sustain_s or 0) + _START_S
    asked = settings.scenario_s * len(settings.scenarios)
    least = settings.min_s + rest + asked
    most = settings.warmup_max_s + settings.max_s + rest + _LONGEST * asked
    origin = {None: f"trained on {spec.data}, once", "random": "random"}
    rows = [
        (cell.model.label, cell.precision, cell.backend, cell.device or "default",
         origin.get(cell.weights, cell.weights or ""), f"{least:.0f} to {most:.0f} s")
        for cell in spec.cells
    ]  # fmt: skip
    count = len(spec.cells)
    return Table(
        f"{count} cell{'s' * (count > 1)}, {least * count:.0f} to {most * count:.0f} s of measuring",
        ("Model", "Precision", "Backend", "Device", "Weights", "Time"),
        tuple(rows),
        numeric=False,
        notes=(
            "Besides: the machine's ceilings, training, quantization and export where they are not cached, evaluation"
            " on the test images, the times of layers, energy where the chip counts it, and the end of a call that"
            " outlasts its phase.",
        ),
    )
