"""Sustained mode and duty cycle, where they were measured."""

from __future__ import annotations

from mbbench.report import units
from mbbench.report.document import Table
from mbbench.result import Result
from mbbench.stats import median


def curves(result: Result) -> list[Table]:
    """Sustained mode and duty cycle, where they were measured."""
    tables = []
    if windows := result.measured.sustained:
        medians = [window.median_ms for window in windows]
        first, last = medians[: len(medians) // 10 or 1], medians[-(len(medians) // 10 or 1) :]
        start, end = median(first), median(last)
        rows: tuple[tuple[str, ...], ...] = (
            ("Median over time", units.curve(medians)),
            ("At the start", units.milliseconds(start)),
            ("At the end", f"{units.milliseconds(end)} ({(end / start - 1) * 100:+.1f} %)"),
            ("Lowest, highest", f"{units.milliseconds(min(medians))}, {units.milliseconds(max(medians))}"),
        )
        title = f"{result.cell.label}, {units.seconds(result.settings.sustain_s or 0)} without a pause"
        tables.append(Table(title, ("Quantity", "Value"), rows, numeric=False, header=False))
    if wakes := result.measured.duty_cycle:
        busy = wakes[0].median_ms
        rows = tuple(
            (
                f"{units.significant(wake.pause_ms)} ms",
                units.milliseconds(wake.median_ms),
                units.ratio(wake.median_ms, busy),
            )
            for wake in wakes
        )
        tables.append(Table(f"{result.cell.label} after a pause", ("Pause", "Median", "over none"), rows))
    return tables
