"""The output of `mbbench run --plan`: the cells of a run and the time they take."""

from __future__ import annotations

from mbbench.measure.latency import timing_limit_s
from mbbench.report.document import Table
from mbbench.spec import RunSpec

_START_S = 1.0  # approximate start of a child process
_MAX_SCENARIO_RUNS = 5  # a scenario takes at most this many times its length


def table(spec: RunSpec) -> Table:
    """Return the cells of a run, each with the shortest and the longest time that its settings allow."""
    settings = spec.settings
    fixed_s = settings.throughput_s + (settings.sustain_s or 0) + _START_S
    scenarios_s = settings.scenario_s * len(settings.scenarios)
    least_s = settings.min_s + fixed_s + scenarios_s
    longest_s = settings.warmup_max_s + timing_limit_s(settings, settings.warmup_max_s) + settings.throughput_s
    most_s = max(settings.max_s, longest_s) + fixed_s - settings.throughput_s + _MAX_SCENARIO_RUNS * scenarios_s
    origin = {None: f"trained on {spec.data}, once", "random": "random"}
    rows = [
        (cell.model.label, cell.precision, cell.backend, cell.device or "default",
         origin.get(cell.weights, cell.weights or ""), f"{least_s:.0f} to {most_s:.0f} s")
        for cell in spec.cells
    ]  # fmt: skip
    count = len(spec.cells)
    return Table(
        f"{count} cell{'s' * (count > 1)}, {least_s * count:.0f} to {most_s * count:.0f} s of measuring",
        ("Model", "Precision", "Backend", "Device", "Weights", "Time"),
        tuple(rows),
        numeric=False,
        notes=(
            "Not included: the machine's ceilings; training, quantization and export if they are not cached; evaluation"
            " on the test images; layer times; energy if the chip counts it; and calls that outlast their phase.",
        ),
    )
