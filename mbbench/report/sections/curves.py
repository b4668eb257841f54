"""Sustained load and duty cycle, as tables."""

from __future__ import annotations

from mbbench.report import units
from mbbench.report.document import Table
from mbbench.result import Result
from mbbench.stats import median


def curve_tables(result: Result) -> list[Table]:
    """Return a table for sustained load and one for the duty cycle, each only if it was measured."""
    tables = []
    if windows := result.measured.sustained:
        medians = [window.median_ms for window in windows]
        tenth = len(medians) // 10 or 1
        start, end = median(medians[:tenth]), median(medians[-tenth:])
        rows: tuple[tuple[str, ...], ...] = (
            ("Median over time", units.sparkline(medians)),
            ("At the start", units.milliseconds(start)),
            ("At the end", f"{units.milliseconds(end)} ({(end / start - 1) * 100:+.1f} %)"),
            ("Lowest, highest", f"{units.milliseconds(min(medians))}, {units.milliseconds(max(medians))}"),
        )
        title = f"{result.cell.label}, sustained load for {units.seconds(result.settings.sustain_s or 0)}"
        tables.append(Table(title, ("Quantity", "Value"), rows, numeric=False, header=False))
    if calls := result.measured.duty_cycle:
        without_pause_ms = calls[0].median_ms
        rows = tuple(
            (
                f"{units.significant(paused.pause_ms)} ms",
                units.milliseconds(paused.median_ms),
                units.ratio(paused.median_ms, without_pause_ms),
            )
            for paused in calls
        )
        tables.append(Table(f"{result.cell.label}, calls after a pause", ("Pause", "Median", "vs. no pause"), rows))
    return tables
