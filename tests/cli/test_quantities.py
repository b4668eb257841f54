import pytest

from mbbench.cli.quantities import parse_bytes
from mbbench.errors import UsageError


@pytest.mark.parametrize(("text", "expected"), [("5MB", 5e6), ("1.5 GB", 1.5e9), ("512KiB", 524288), ("7B", 7)])
def test_sizes_have_decimal_or_binary_units(text: str, expected: float) -> None:
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["5", "MB", "5 mb", "-1MB"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"not a size: .*; write it like 5MB"):
        parse_bytes(text)
