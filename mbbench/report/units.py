"""Numbers as people read them: three significant digits, decimal prefixes, a dash for what is not there."""

from __future__ import annotations

from collections.abc import Sequence

from mbbench.stats import Interval

NONE = "—"
_BLOCKS = "▁▂▃▄▅▆▇█"
_FLAT = 0.01


def significant(value: float) -> str:
    """Three significant digits, never in exponent form: 0.0123, 1.23, 12.3, 123, 1234."""
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
    if value is None:
        return NONE
    text = f"{significant(value)}{unit and ' ' + unit}"
    return text if interval is None else f"{text} [{significant(interval.low)}, {significant(interval.high)}]"


def megabytes(size_bytes: int | None) -> str:
    """Decimal megabytes (10^6 bytes)."""
    return number(None if size_bytes is None else size_bytes / 1e6, "MB")


def millions(count: int | None) -> str:
    return number(None if count is None else count / 1e6, "M")


def percent(share: float | None, interval: Interval | None = None) -> str:
    if share is None:
        return NONE
    text = f"{share * 100:.1f} %"
    return text if interval is None else f"{text} [{interval.low * 100:.1f}, {interval.high * 100:.1f}]"


def milliseconds(value: float | None, interval: Interval | None = None) -> str:
    return number(value, "ms", interval)


def millijoules(joules: float | None, interval: Interval | None = None, unit: str = "mJ") -> str:
    if joules is None:
        return NONE
    scaled = None if interval is None else Interval(interval.low * 1e3, interval.high * 1e3)
    return number(joules * 1e3, unit, scaled)


def seconds(value: float) -> str:
    return milliseconds(value * 1e3) if value < 1 else f"{significant(value)} s"


def ratio(numerator: float | None, denominator: float | None) -> str:
    return NONE if numerator is None or not denominator else f"{significant(numerator / denominator)}x"


def curve(values: Sequence[float]) -> str:
    """A line of blocks from the lowest (▁) to the highest (█); a range of less than 1 % is drawn flat."""
    low, high = min(values), max(values)
    span = max(high - low, _FLAT * low)
    return "".join(_BLOCKS[min(int((value - low) / span * len(_BLOCKS)), len(_BLOCKS) - 1)] for value in values)
