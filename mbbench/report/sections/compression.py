"""What compression gains and costs: lower precisions and pruned networks relative to what they were made from."""

from __future__ import annotations

from collections.abc import Sequence

from mbbench.analysis.pairing import compression_pairs
from mbbench.report import units
from mbbench.report.document import Section, Table
from mbbench.report.names import Name
from mbbench.report.sections.notes import noise_warning
from mbbench.result import Result
from mbbench.stats import Interval, mcnemar, paired_interval


def section(results: Sequence[Result], name: Name) -> Section | None:
    """Return the table of all compressed cells, or None if there is none."""
    compressed = table(results, name)
    return Section("compression", "Compression", (), (compressed,)) if compressed.rows else None


def table(results: Sequence[Result], name: Name) -> Table:
    """Return latency, size, memory and top-1 of each compressed cell, relative to what it was made from in fp32."""
    rows = []
    for result, reference in compression_pairs(results):
        change, p_value = _top1_change(result, reference)
        rows.append(
            (
                name(result),
                _quotient(result.median_ms(), reference.median_ms()),
                _quotient(result.size_bytes(), reference.size_bytes()),
                _quotient(result.peak_rss_bytes(), reference.peak_rss_bytes()),
                change,
                p_value,
            )
        )
    columns = ("Cell", "Latency", "Size", "Memory", "Top-1 [95 %]", "p")
    notes = (
        "Latency, size and memory are ratios to the same cell in fp32, of a pruned network to the whole network: below"
        " 1 is faster or smaller. Top-1 is the change in points on the same images, p is from McNemar's test: below"
        " 0.05 the change is significant.",
        *noise_warning(results),
    )
    return Table("Compressed cells relative to fp32", columns, tuple(rows), notes=notes)


def _top1_change(result: Result, reference: Result) -> tuple[str, str]:
    """Return the change of top-1 in points with its interval, and McNemar's p; or dashes if it is unknown."""
    accuracy, before = result.measured.accuracy, reference.measured.accuracy
    if accuracy is not None and accuracy.drop is not None and result.cell.model.widths is None:
        drop = accuracy.drop
        return _points(-drop.share, Interval(-drop.ci95.high, -drop.ci95.low)), f"{drop.p_value:.2g}"
    if accuracy is None or before is None or accuracy.wrong is None or before.wrong is None:
        return units.MISSING, units.MISSING
    if result.setup.data != reference.setup.data:
        return units.MISSING, units.MISSING
    lost, gained = len({*accuracy.wrong} - {*before.wrong}), len({*before.wrong} - {*accuracy.wrong})
    change = (gained - lost) / accuracy.images
    return _points(change, paired_interval(gained, lost, accuracy.images)), f"{mcnemar(lost, gained):.2g}"


def _points(change: float, interval: Interval) -> str:
    return f"{change * 100:+z.2f} [{interval.low * 100:+z.2f}, {interval.high * 100:+z.2f}]"


def _quotient(value: float | None, reference: float | None) -> str:
    return units.MISSING if value is None or not reference else f"{value / reference:.2f}"
