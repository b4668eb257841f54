"""Packing of records; test_browser.py tests that the page's script unpacks them."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbbench.report.formats import records
from mbbench.result import Result, ScenarioResult

Make = Callable[..., Result]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=12,
)


def test_samples_become_planes_of_bytes_in_the_unit_of_their_list(make_result: Make) -> None:
    result = make_result()
    latency = result.measured.latency
    assert latency is not None
    timed = replace(result, measured=replace(result.measured, latency=replace(latency, samples_ms=(0.3, 0.07), n=2)))
    offline = ScenarioResult(scenario="offline", batch=1, queries=5, seconds=1.0, images_per_s=5.0)
    empty = replace(result, measured=replace(result.measured, latency=None, served=(offline,)))
    columns, planes = records.pack([timed, empty, timed])
    rows = records.unfold(json.loads(columns))
    assert [rows[index]["measured"]["latency"]["samples_ms"] for index in (0, 2)] == [[2, 10000]] * 2
    assert rows[1]["measured"]["served"][0]["samples_ms"] == [0, 1]
    assert planes == bytes([30, 7, 30, 7, *[0] * 28])
    assert records.unpack(columns, planes) == [timed, empty, timed]


def test_rows_become_columns_and_missing_values_stay_missing() -> None:
    rows = [{"n": 1, "of": [{"k": "x"}, {"k": "y"}]}, {"n": 2, "of": [{"k": "z"}]}, None, {"n": 3}]
    assert records.fold(rows) == {
        "shapes": [("n", "of"), None, ("n",)],
        "rows": [0, 0, 1, 2],
        "columns": {
            "n": [1, 2, 3],
            "of": {
                "lengths": [2, 1],
                "items": {"shapes": [("k",)], "rows": [0, 0, 0], "columns": {"k": ["x", "y", "z"]}},
            },
        },
    }


@given(st.lists(VALUES, max_size=5))
def test_unfolding_reverses_folding(rows: list[Any]) -> None:
    assert records.unfold(json.loads(json.dumps(records.fold(rows)))) == rows


def test_a_backend_name_that_looks_like_samples_is_unchanged(make_result: Make) -> None:
    result = make_result(backend='"samples_ms":[7,1]')
    assert records.unpack(*records.pack([result])) == [result]


@pytest.mark.parametrize("damaged", [(b"", b""), (b"{}", b"12345678"), (b"{}", b"123"), (b"7", b""), (b"[7]", b"")])
def test_damaged_data_is_refused(damaged: tuple[bytes, bytes]) -> None:
    with pytest.raises((ValueError, msgspec.MsgspecError)):
        records.unpack(*damaged)


def test_truncated_samples_are_refused(make_result: Make) -> None:
    columns, planes = records.pack([make_result()])
    with pytest.raises(ValueError, match=r"record 1: measured.latency: n is 700, but there are 350 samples"):
        records.unpack(columns, planes[: len(planes) // 16 * 8])
