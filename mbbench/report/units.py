"""Numbers as text: three significant digits, decimal prefixes, and a dash for a missing value."""

from __future__ import annotations

from collections.abc import Sequence

from mbbench.stats import Interval

MISSING = "—"
_BLOCKS = "▁▂▃▄▅▆▇█"
_MIN_SPAN = 0.01  # of the lowest value: a smaller range is drawn flat


def significant(value: float) -> str:
    """Return `value` with three significant digits and never an exponent: 0.0123, 1.23, 12.3, 123, 1234."""
    if value == 0:
        return "0"
    decimals = 2
    magnitude = abs(float(f"{value:.3g}"))  # 99.99 has the digits of 100
    while magnitude >= 10 and decimals:
        magnitude /= 10
        decimals -= 1
    while magnitude < 1 and decimals < 9:
        magnitude *= 10
        decimals += 1
    return f"{value:.{decimals}f}"


def number(value: float | None, unit: str = "", interval: Interval | None = None) -> str:
    """Return `1.23 ms [1.22, 1.24]`."""
    if value is None:
        return MISSING
    text = f"{significant(value)}{unit and ' ' + unit}"
    return text if interval is None else f"{text} [{significant(interval.low)}, {significant(interval.high)}]"


def megabytes(size_bytes: int | None) -> str:
    """Return the size in decimal megabytes (10^6 bytes)."""
    return number(None if size_bytes is None else size_bytes / 1e6, "MB")


def millions(count: int | None) -> str:
    """Return `569 M`."""
    return number(None if count is None else count / 1e6, "M")


def percent(share: float | None, interval: Interval | None = None) -> str:
    """Return a share from 0 to 1 as `99.7 % [98.4, 100.0]`."""
    if share is None:
        return MISSING
    text = f"{share * 100:.1f} %"
    return text if interval is None else f"{text} [{interval.low * 100:.1f}, {interval.high * 100:.1f}]"


def milliseconds(value: float | None, interval: Interval | None = None) -> str:
    """Return `0.479 ms [0.478, 0.480]`."""
    return number(value, "ms", interval)


def millijoules(joules: float | None, interval: Interval | None = None, unit: str = "mJ") -> str:
    """Return joules as `10.1 mJ [9.95, 10.2]`."""
    if joules is None:
        return MISSING
    scaled = None if interval is None else Interval(interval.low * 1e3, interval.high * 1e3)
    return number(joules * 1e3, unit, scaled)


def seconds(value: float) -> str:
    """Return a duration in ms below 1 s, else in s."""
    return milliseconds(value * 1e3) if value < 1 else f"{significant(value)} s"


def ratio(numerator: float | None, denominator: float | None) -> str:
    """Return `27.2x`."""
    return MISSING if numerator is None or not denominator else f"{significant(numerator / denominator)}x"


def sparkline(values: Sequence[float]) -> str:
    """Return a line of blocks from the lowest value (▁) to the highest (█); a range below 1 % is drawn flat."""
    low, high = min(values), max(values)
    span = max(high - low, _MIN_SPAN * low)
    return "".join(_BLOCKS[min(int((value - low) / span * len(_BLOCKS)), len(_BLOCKS) - 1)] for value in values)
