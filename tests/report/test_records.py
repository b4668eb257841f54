"""The packing of records; that the page's script unpacks the same is tested in the browser."""

from collections.abc import Callable
from dataclasses import replace

import msgspec
import pytest

from mbbench.report import records
from mbbench.result import Result

Make = Callable[..., Result]


def test_samples_become_planes_of_bytes_in_a_unit_of_their_own(make_result: Make) -> None:
    result, other = make_result(), make_result()
    latency = result.measured.latency
    assert latency is not None
    timed = replace(result, measured=replace(result.measured, latency=replace(latency, samples_ms=(0.3, 0.07), n=2)))
    failed = replace(other, measured=replace(other.measured, latency=replace(latency, samples_ms=(), n=0)))
    lines, planes = records.pack([timed, failed, timed])
    first, second, third = lines.split(b"\n")
    assert (b'"samples_ms":[2,10000]' in first, b'"samples_ms":[0,1]' in second, third) == (True, True, first)
    assert planes == bytes([30, 7, 30, 7, *[0] * 28])
    assert records.unpack(lines, planes) == [timed, failed, timed]


def test_a_name_that_looks_like_samples_stays_a_name(make_result: Make) -> None:
    result = make_result(backend='"samples_ms":[7,1]')
    assert records.unpack(*records.pack([result])) == [result]


@pytest.mark.parametrize("damaged", [(b"", b""), (b"{}", b"12345678"), (b"{}", b"123")])
def test_what_was_not_packed_is_refused(damaged: tuple[bytes, bytes]) -> None:
    with pytest.raises((ValueError, msgspec.MsgspecError)):
        records.unpack(*damaged)


def test_samples_that_were_cut_off_are_missed(make_result: Make) -> None:
    lines, planes = records.pack([make_result()])
    with pytest.raises(ValueError, match=r"\d+ samples are there, \d+ are counted"):
        records.unpack(lines, planes[: len(planes) // 16 * 8])
