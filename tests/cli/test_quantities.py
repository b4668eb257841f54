import pytest

from mbbench.cli.quantities import bytes_within_bounds, parse_numbers, parse_time, time_within_bounds
from mbbench.errors import UsageError


@pytest.mark.parametrize(("text", "expected"), [("5MB", 5e6), ("1.5 GB", 1.5e9), ("512KiB", 524288), ("7B", 7)])
def test_sizes_have_decimal_or_binary_units(text: str, expected: float) -> None:
    assert bytes_within_bounds("max_size_gb", text) == expected


@pytest.mark.parametrize("text", ["5", "MB", "5 mb", "-1MB", ""])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=rf"^--max-size is not a size: '{text}'; write it like 5MB"):
        bytes_within_bounds("max_size_gb", text)


@pytest.mark.parametrize("text", ["0MB", "100001GB", f"{'9' * 400}GB"])
def test_a_size_out_of_range_is_refused_as_it_was_written(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        bytes_within_bounds("max_rss_gb", text)
    assert str(caught.value) == f"--max-rss is out of range: {text}; give more than 0GB and at most 100000GB"


def test_times_are_exact_in_either_unit() -> None:
    times = ("100ms", "90s", "10m", "1.5 h")
    assert [parse_time("--time", text, "s") for text in times] == [0.1, 90.0, 600.0, 5400.0]
    assert [parse_time("--idle", f"{count}ms", "ms") for count in range(1, 1000)] == list(range(1, 1000))
    with pytest.raises(UsageError, match=r"^--idle is not a time: '10'; write it like 100ms, 90s, 10m or 1h$"):
        parse_time("--idle", "10", "ms")


@pytest.mark.parametrize("text", ["0ms", "25h", f"{'9' * 400}s"])
def test_a_time_out_of_range_is_refused_as_it_was_written(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        time_within_bounds("max_p99_s", text)
    assert str(caught.value) == (
        f"--max-p99 is out of range: {text}; give more than 0s and at most 86400s, such as 10ms"
    )


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0.0001-8+0.0000001", "79999001"),
        ("0-1+0.0001", "10001"),
        ("0-0.5+0.0001,1-2+0.0002", "10002"),
        (",".join(["1"] * 10_001), "10001"),
        ("0-1" + "0" * 24 + "+0.00000000000000000001", "1" + "0" * 43 + "1"),
    ],
)
def test_more_than_10000_numbers_are_refused_before_they_are_listed(text: str, count: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_numbers("--alpha", float, text)
    assert str(caught.value) == (
        f"--alpha lists too many numbers: {count}; give at most 10000, with fewer values or a larger step"
    )


def test_10000_numbers_are_listed() -> None:
    assert len(parse_numbers("--res", int, "1-10000+1")) == 10_000


@pytest.mark.parametrize("item", ["8-1+1", "1-0.5+0.1", " 2-1.9+5 "])
def test_a_range_that_ends_before_it_begins_is_refused(item: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_numbers("--alpha", float, f"0.5,{item}")
    assert str(caught.value) == f"--alpha has an empty range: {item.strip()}; put the smaller number first"


@pytest.mark.parametrize("text", ["1.2.3-4+1", "1-2+0", "1-.+1", f"1-{'9' * 100}+1", "nan-1+1"])
def test_a_malformed_range_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--alpha is not a list of numbers: .*; write it like --alpha 0.5,1.0 or"):
        parse_numbers("--alpha", float, text)
