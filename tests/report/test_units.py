import pytest

from mbbench.report import units
from mbbench.stats import Interval


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.000123456, "0.000123"),
        (0.0123, "0.0123"),
        (0.5, "0.500"),
        (1.2345, "1.23"),
        (12.345, "12.3"),
        (123.45, "123"),
        (9.9999, "10.0"),
        (99.9999, "100"),
        (0.99999, "1.00"),
        (999.9, "1000"),
        (1234.5, "1234"),
        (15470.26, "15470"),
        (-1.5, "-1.50"),
    ],
)
def test_a_number_has_three_significant_digits(value: float, text: str) -> None:
    assert units.significant(value) == text


def test_a_missing_value_is_a_dash() -> None:
    missing = (
        units.number(None),
        units.megabytes(None),
        units.millions(None),
        units.percent(None),
        units.milliseconds(None),
        units.ratio(None, 1.0),
        units.ratio(1.0, None),
    )
    assert set(missing) == {"—"}


def test_a_number_has_its_unit_and_interval() -> None:
    assert units.megabytes(3_390_000) == "3.39 MB"
    assert units.millions(48_700_000) == "48.7 M"
    assert units.percent(0.997, Interval(0.984, 1.0)) == "99.7 % [98.4, 100.0]"
    assert units.milliseconds(0.479, Interval(0.478, 0.48)) == "0.479 ms [0.478, 0.480]"
    assert units.ratio(27.0, 2.0) == "13.5x"
    assert (units.seconds(0.05), units.seconds(12.34)) == ("50.0 ms", "12.3 s")
