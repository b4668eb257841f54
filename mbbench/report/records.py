"""The records that a page carries, packed: the samples, which are nearly all of them, as planes of bytes.

`page.js` unpacks the same.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

import msgspec

from mbbench.result import SAMPLES_JSON, Result

_PACKED = re.compile(rb'"samples_ms":\[(\d+),(\d+)\]')


def pack(results: Iterable[Result]) -> tuple[bytes, bytes]:
    """JSON lines with [count, unit] in place of each list of samples, and the samples of all.

    A sample is a number of nanoseconds over its list's unit, in eight bytes: the lowest of every sample, then the next
    of every sample, and so on, since those that are alike compress.
    """
    import numpy as np

    samples: list[int] = []

    def cut(match: re.Match[bytes]) -> bytes:
        own = [round(float(text) * 1e6) for text in match[1].split(b",") if text]
        unit = math.gcd(*own) or 1
        samples.extend(ns // unit for ns in own)
        return b'"samples_ms":[%d,%d]' % (len(own), unit)

    lines = SAMPLES_JSON.sub(cut, b"\n".join(map(msgspec.json.encode, results)))
    return lines, np.array(samples, "<u8").view("u1").reshape(-1, 8).T.tobytes()


def unpack(lines: bytes, planes: bytes) -> list[Result]:
    """The results again; raises `ValueError` for what `pack` did not write."""
    import numpy as np

    samples = np.frombuffer(planes, "u1").reshape(8, -1).T.copy().view("<u8").ravel().tolist()
    used = 0

    def fill(match: re.Match[bytes]) -> bytes:
        nonlocal used
        count, unit = int(match[1]), int(match[2])
        own = samples[used : used + count]
        used += count
        return b'"samples_ms":%s' % msgspec.json.encode([number * unit / 1e6 for number in own])

    whole = _PACKED.sub(fill, lines)
    if used != len(samples):
        raise ValueError(f"{len(samples)} samples are there, {used} are counted")
    return [msgspec.json.decode(line, type=Result) for line in whole.split(b"\n")]
